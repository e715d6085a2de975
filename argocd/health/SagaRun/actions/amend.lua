-- The annotation's value is the reason; the operator takes all of them off when the decision is carried out.
local given = actionParams or {}
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["amends.dev/amend"] = given["reason"] or "decided in Argo CD"
obj.metadata.annotations["amends.dev/actor"] = given["actor"] or "somebody in Argo CD"
obj.metadata.annotations["amends.dev/effect"] = given["effect"]
obj.metadata.annotations["amends.dev/amendment"] = given["amendment"]
return obj
