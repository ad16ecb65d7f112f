"""The live pages and the JSON API."""

from vitriflow.web.app import create_app, create_app_from_env

__all__ = ["create_app", "create_app_from_env"]
