"""RunService and DefinitionService: one module for each few methods, one conversion for all of them."""
