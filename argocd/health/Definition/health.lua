-- Saga, Participant, RetryPolicy and Choreography are kstatus-shaped: observedGeneration, Ready, and Reconciling while there is work.
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

if obj.spec ~= nil and obj.spec.suspend == true then
  return {status = "Suspended", message = "spec.suspend is true: what is in force stays as it is"}
end
if obj.status == nil or obj.status.observedGeneration == nil then
  return {status = "Progressing", message = "the operator has not seen it yet"}
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
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
  local runs = obj.status.runs
  if runs ~= nil and runs.parked ~= nil and runs.parked > 0 then
    return {status = "Healthy", message = runs.parked .. " parked, waiting for a person; " .. ready.message}
  end
  local flows = obj.status.flows
  if flows ~= nil and flows.late ~= nil and flows.late > 0 then
    return {status = "Healthy", message = flows.late .. " late, waiting for an event; " .. ready.message}
  end
  return {status = "Healthy", message = ready.message}
end
return {status = "Progressing", message = ready ~= nil and say(ready) or "the operator has not said whether it is ready"}
