"""From runs and folders of results to what people read: tables, figures, a page."""
