"""The synchronous client of a chief: standard library only, for programs and for the command line."""

from company.client.client import Client, connect
from company.client.job import FragmentResult, Job

__all__ = ["Client", "FragmentResult", "Job", "connect"]
