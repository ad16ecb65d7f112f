from tests.databases import catalog, empty_url, postgres, sqlite_catalog

__all__ = ["catalog", "empty_url", "postgres", "sqlite_catalog"]
