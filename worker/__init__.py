"""One replica: scheduler, KV pages, model, execution, and the group of ranks that runs them."""
