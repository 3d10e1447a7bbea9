"""One request type and one validator for both fronts: what one refuses, the other refuses."""
