-- Removed, not false: git has no such field, so there is nothing to differ from.
obj.spec.suspend = nil
return obj
