"""The chief's REST interface: routes, access and problems over the port `company.chief.facade.Chief`."""

from company.chief.api.auth import Auth
from company.chief.api.routes import api_routes

__all__ = ["Auth", "api_routes"]
