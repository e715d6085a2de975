-- A run is kstatus-shaped: observedGeneration, Ready (Completed), Reconciling (under way), Stalled (needs a person).
local function condition(obj, kind)
  for _, found in ipairs(obj.status.conditions or {}) do
    if found.type == kind then
      return found
    end
  end
  return nil
end

local function say(found)
  if found.message == nil or found.message == "" then
    return found.reason
  end
  return found.reason .. ": " .. found.message
end

local ended = obj.status ~= nil and obj.status.endedAt ~= nil
if obj.spec ~= nil and obj.spec.suspend == true and not ended then
  if obj.status ~= nil and obj.status.runId ~= nil then
    return {status = "Suspended", message = "spec.suspend is true: the run goes on and is not shown"}
  end
  return {status = "Suspended", message = "spec.suspend is true: it is not started"}
end
if obj.status == nil or obj.status.observedGeneration == nil then
  return {status = "Progressing", message = "the operator has not seen it yet"}
end
-- What has ended stays so, whatever changes in its spec.
if obj.status.observedGeneration ~= obj.metadata.generation and not ended then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
end
local stalled = condition(obj, "Stalled")
if stalled ~= nil and stalled.status == "True" then
  return {status = "Degraded", message = say(stalled)}
end
local reconciling = condition(obj, "Reconciling")
if reconciling ~= nil and reconciling.status == "True" then
  return {status = "Progressing", message = say(reconciling)}
end
local ready = condition(obj, "Ready")
if ready ~= nil and ready.status == "False" then
  return {status = "Degraded", message = say(ready)}
end
if ready ~= nil and ready.status == "True" then
  return {status = "Healthy", message = say(ready)}
end
return {status = "Progressing", message = ready ~= nil and say(ready) or "not started yet"}
