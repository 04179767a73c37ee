"""Schema revisions, oldest first; `company.chief.store.schema.REVISIONS` lists them."""
