"""Generated stubs; `make proto` renews them."""
