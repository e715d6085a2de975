-- The value only has to be new; a time tells people when somebody asked.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["amends.dev/reconcile-at"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
