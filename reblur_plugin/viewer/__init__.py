"""A slider over pictures of one scene: script and style, for the pages that `report` and `app` make."""
