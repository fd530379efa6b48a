"""What the catalog holds besides what Kedro knows: tables, figures, policies."""
