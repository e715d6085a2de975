-- A decision is offered while the run can take it and none is on its way. One that goes forward can be undone until its
-- pivot; beyond it the operator says that it was refused.
local suspended = obj.spec ~= nil and obj.spec.suspend == true
local ended = obj.status ~= nil and obj.status.endedAt ~= nil
local annotations = obj.metadata.annotations or {}
local offered = {}
if obj.status ~= nil and obj.status.parked ~= nil then
  for _, resolution in ipairs(obj.status.parked.resolutions or {}) do
    offered[resolution] = true
  end
elseif obj.status ~= nil then
  offered["compensate"] = obj.status.phase == "Running"
  offered["park"] = obj.status.stalled ~= nil
  offered["retry"] = obj.status.stalled ~= nil
end
local decisions = {"retry", "skip", "compensate", "amend", "park"}
local decided = suspended
for _, name in ipairs(decisions) do
  decided = decided or annotations["amends.dev/" .. name] ~= nil
end
local actions = {
  reconcile = {disabled = suspended or ended},
  suspend = {disabled = suspended or ended},
  resume = {disabled = not suspended},
}
for _, name in ipairs(decisions) do
  actions[name] = {disabled = decided or offered[name] ~= true}
end
return actions
