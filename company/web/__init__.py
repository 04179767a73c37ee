"""The web page of a chief: server-rendered, readable without JavaScript, no third-party request."""

from company.web.routes import web_routes

__all__ = ["web_routes"]
