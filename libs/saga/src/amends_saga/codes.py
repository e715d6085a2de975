"""Every rule's code in one table. A code never changes its meaning; the number of a deleted rule stays unused.

Read by the rules, by the reference page and by the tests that ask for a wrong and a right example of each.
"""

from amends_saga.findings import Code as Code
from amends_saga.findings import Severity

ALL: dict[str, Code] = {}


def _code(id_: str, title: str, why: str, severity: Severity = Severity.ERROR) -> Code:
    code = Code(id_, severity, title, why)
    assert id_ not in ALL, id_
    ALL[id_] = code
    return code


_WARNING = Severity.WARNING

# Reading
NOT_YAML = _code("AM001", "Not YAML", "A text that cannot be read cannot be checked.")
YAML_FEATURE = _code(
    "AM002",
    "An alias, anchor, tag or odd key",
    "Definitions are plain data. Aliases can make a small text huge, tags ask the reader to build things.",
)
TOO_LARGE = _code("AM003", "Too large", "Limits keep every answer under a second, whatever the text.")
WRONG_KIND = _code("AM004", "Not a resource of amends.dev", "The kind and its version decide how the rest is read.")
NO_API_VERSION = _code(
    "AM005", "apiVersion is missing", "Amends reads the text without it, Kubernetes does not.", _WARNING
)
UNKNOWN_FIELD = _code("AM006", "Unknown field", "A misspelt field would be ignored silently.")
DUPLICATE_FIELD = _code("AM007", "Field given twice", "Only one of the two would count.")
MISSING_FIELD = _code("AM008", "Field is missing", "Nothing sensible can be assumed for it.")
WRONG_TYPE = _code("AM009", "Value of the wrong type", "YAML guesses types; a guess must not change what a saga does.")
BAD_VALUE = _code("AM010", "Value out of bounds", "The value has the right type, but is not allowed here.")
BAD_NAME = _code("AM011", "Malformed name", "Names are parts of keys, addresses and expressions.")
DUPLICATE_RESOURCE = _code("AM012", "Resource given twice", "Only one of the two would be in force.")
NOT_VERIFIED = _code(
    "AM013", "A field that is not acted upon", "A safeguard that is written down and not enforced is worse than none."
)
YAML_READERS = _code(
    "AM014",
    "A value that other readers of YAML take for something else",
    "kubectl, helm and Argo CD read YAML 1.1, where `no` is false, `010` is 8 and `12:30` is 750.",
    _WARNING,
)

# Participants and contracts
UNKNOWN_PARTICIPANT = _code("AM020", "No Participant for the service", "Only a Participant has an address.")
PARTICIPANT_CONFLICT = _code(
    "AM021", "Two Participants for one service", "Amends does not choose which of them is called; a person must."
)
NOT_GRANTED = _code(
    "AM022", "No grant for the caller", "A Participant is called only from the namespaces that its owner lists."
)
NOT_ALLOWED = _code("AM023", "Method not on the allow-list", "The Participant's owner says what may be called.")
FORBIDDEN_SERVICE = _code(
    "AM024", "A service that no saga may call", "Reflection, channelz and the orchestrator itself are not participants."
)
DESCRIPTORS_UNKNOWN = _code(
    "AM025", "Descriptors are not known", "Without the contract nothing can be checked or sent."
)
DESCRIPTORS_BROKEN = _code("AM026", "Descriptors cannot be used", "The contract contradicts itself or is incomplete.")
DESCRIPTORS_CONFLICT = _code(
    "AM027",
    "Contracts contradict each other",
    "Two participants that mean different things by one name cannot be in one saga.",
)
UNKNOWN_SERVICE = _code("AM028", "Service not in the contract", "The Participant's descriptors do not define it.")
UNKNOWN_METHOD = _code("AM029", "Method does not exist", "The service does not define it.")
NOT_UNARY = _code("AM030", "Method is a stream", "A step is one request and one response.")
CONTRACT_DISAGREES = _code(
    "AM031",
    "Contract and Participant disagree",
    "What a method promises decides what is safe, so both must say the same.",
)
UNKNOWN_MESSAGE = _code("AM032", "Message type does not exist", "The input must be a message of the contracts.")
UNDONE_BY_NOTHING = _code(
    "AM033", "compensatedBy names no method", "The method that should undo this one does not exist."
)
ENTRY_UNKNOWN = _code("AM034", "The Participant speaks of no method", "The entry would have no effect.")

# The graph and its shape
DUPLICATE_STEP = _code("AM040", "Step name used twice", "Steps are known by their names, in the journal too.")
RESERVED_NAME = _code(
    "AM041", "Step name means something else", "In expressions the name would hide, or be hidden by, something else."
)
UNKNOWN_STEP = _code("AM042", "after names no step", "The step would never begin, or begin too early.")
CYCLE = _code("AM043", "Steps wait for each other", "None of them would ever begin.")
BESIDE_PIVOT = _code(
    "AM044",
    "A step runs beside the pivot",
    "Whether it must be undone or must succeed would depend on which of the two is faster.",
)
SEVERAL_PIVOTS = _code("AM045", "More than one pivot", "There is one point of no return.")
NO_COMPENSATION = _code(
    "AM046", "Nothing undoes the step", "Before the pivot everything that has an effect must be undone on failure."
)
POST_ONCE = _code(
    "AM047", "A step after the pivot cannot be repeated", "After the pivot steps are tried until they succeed."
)
POST_COMPENSATION = _code(
    "AM048", "A step after the pivot has a compensation", "After the pivot nothing is undone; it would never run."
)
PIVOT_COMPENSATION = _code("AM049", "The pivot has a compensation", "The point of no return is not undone.")
PIVOT_WHEN = _code("AM050", "The pivot has a condition", "A skipped pivot leaves no durable point of no return.")
PIVOT_READ = _code("AM051", "The pivot is a read", "A call without side effects is no point of no return.")
COMPENSATION_ONCE = _code("AM052", "The compensation cannot be repeated", "Compensations are tried until they succeed.")
COMPENSATION_ELSEWHERE = _code(
    "AM053",
    "The compensation of a guarded action belongs to another service",
    "A late action looks for its void in its own service's barrier table, so the void must be there.",
)
PAIR_NOT_GUARDED = _code(
    "AM054",
    "Only one of action and compensation is guarded",
    "Guarded is a property of the pair: they share one barrier table.",
)
UNDO_DISAGREES = _code(
    "AM055",
    "The contract declares another way to undo it",
    "What the contract declares about undoing and the definition must agree.",
)
READ_COMPENSATED = _code("AM056", "A read has a compensation", "A call without side effects leaves nothing to undo.")
PIVOT_ONCE = _code(
    "AM057",
    "The pivot is attempted once",
    "It is plain and not idempotent: if its one attempt is in doubt, a person must decide.",
    _WARNING,
)
PLAIN_STEP = _code(
    "AM058",
    "What a plain step cannot promise",
    "A plain method cannot refuse a call that arrives after the run has decided to undo it.",
    _WARNING,
)
AMENDMENT_WITHOUT_PIVOT = _code(
    "AM059",
    "afterPivot without a pivot",
    "What a person may choose behind the pivot could never be chosen: until the pivot a run is undone.",
)

# Expressions
EXPRESSION_SYNTAX = _code("AM060", "The expression cannot be parsed", "The text is not valid CEL.")
UNKNOWN_NAME = _code("AM061", "Unknown name in an expression", "No step, field, message or function has this name.")
EXPRESSION_TYPE = _code("AM062", "Type error in an expression", "It would fail whenever it ran.")
RESULT_TYPE = _code("AM063", "The expression has another type than the method wants", "The request could not be sent.")
NOT_IN_SCOPE = _code(
    "AM064",
    "The step is not certain to have finished",
    "An expression may use a response only if its step always ends before.",
)
TOO_COMPLEX = _code(
    "AM065", "The expression is too long, deep or costly", "Limits keep one run from stopping all others."
)
PRESENCE_LOST = _code(
    "AM066",
    "Copying a field that may be unset",
    "CEL reads an unset field as its default, so that a copy of it is set: `money {}`, 1970, 0.",
)
ONEOF_LOST = _code("AM067", "Two arms of one oneof", "Only the last one is kept, the other is dropped silently.")
NARROWING = _code(
    "AM068",
    "A number may not fit",
    "CEL counts in 64 bits; a value that does not fit fails, or becomes infinite.",
    _WARNING,
)
LITERAL_RANGE = _code("AM069", "A number does not fit", "The expression would fail whenever it ran.")
SKIPPED_STEP = _code(
    "AM070",
    "The step may have been skipped",
    "If its condition skips the step, its response is empty.",
)
REDACTION_LOST = _code(
    "AM071",
    "A redacted value becomes visible",
    "The field that it is copied to is not marked debug_redact, so people would see it.",
    _WARNING,
)
BAD_PATTERN = _code("AM072", "Malformed regular expression", "It would fail whenever it ran.")
ANY_COPIED = _code(
    "AM073",
    "An Any is copied",
    "CEL opens it on the way: a payload whose type is not among the saga's messages makes the expression fail.",
    _WARNING,
)
REQUIRED_MISSING = _code(
    "AM074", "A required field is not set", "The message could not be sent: its contract says `required`."
)
HIDING_FIELD = _code(
    "AM075",
    "A field hides what makes its message",
    "The library that evaluates expressions makes a message with `MergeFromString`, and would find the field instead.",
)
ALWAYS_FAILS = _code("AM076", "A part that always fails", "Every run that comes to it would fail.")

# Time and policies
POLICY_CONFLICT = _code(
    "AM080", "Two retry policies for one method", "Amends does not choose which of them applies; a person must."
)
DEADLINE_TOO_SHORT = _code(
    "AM081",
    "The worst case is longer than the deadline",
    "A run whose participants are slow would be undone although every step may still succeed.",
    _WARNING,
)
AMPLIFICATION = _code(
    "AM082",
    "Retries multiply",
    "When every layer retries, one failure at the bottom becomes a storm of calls.",
    _WARNING,
)
NO_DEADLINE = _code(
    "AM083", "Neither deadline nor stalledAfter", "A run that waits for ever would never show as stalled.", _WARNING
)
WINDOW_TOO_SHORT = _code(
    "AM084",
    "Keys are forgotten before the last attempt",
    "A retry after the window may have a second effect.",
    _WARNING,
)
RETENTION_TOO_SHORT = _code(
    "AM085",
    "The barrier forgets before the run ends",
    "A run older than barrierRetention minus one day makes no more calls and is parked.",
)
POLICY_IDLE = _code("AM086", "The retry policy selects nothing", "It would have no effect.", _WARNING)

# Choreographies
EVENT_UNKNOWN = _code("AM090", "No such event", "An event that is in no contract is never published.")
NO_EVENT = _code(
    "AM091", "The message is no event", "An event says in its contract which topic it is in and what its key is."
)
KEY_MISSING = _code(
    "AM092", "The event has no such key", "Nothing would tie the event to the others of what it belongs to."
)
NOBODY_PUBLISHES = _code("AM093", "Nobody publishes the event", "It would be waited for in vain.")
NOBODY_CONSUMES = _code("AM094", "Nobody consumes the event", "What it tells would be lost, and nothing would follow.")
PARTICIPANT_UNKNOWN = _code("AM095", "No such participant", "Who is late must be somebody that can be asked.")
OTHER_PUBLISHER = _code(
    "AM096", "Another participant publishes the event", "The wrong one would be asked when it is late."
)
NOT_CONSUMED = _code(
    "AM097", "The participant does not consume what it answers", "It cannot answer what it does not hear of."
)
EVENT_NOT_DESCRIBED = _code(
    "AM098", "The event is not described", "What follows from it, and how it is undone, must be said."
)
EVENT_TWICE = _code("AM099", "Described twice", "Only one of the two would count.")
TWO_PUBLISHERS = _code(
    "AM100", "Two participants publish one event", "Events of one key keep their order only if one publisher has it."
)
NO_END = _code("AM101", "A path without an end", "Nobody would ever know whether what was begun is done.")
UNBOUNDED_CYCLE = _code("AM102", "A cycle without a bound", "Events could follow each other for ever.")
NOT_UNDONE = _code(
    "AM103", "An effect that nobody undoes", "What ends undone must leave nothing of what was done on the way."
)
NEVER_HAPPENS = _code("AM104", "The event can never happen", "Nothing that can happen leads to it.", _WARNING)
TOO_MANY_PATHS = _code("AM105", "Too many paths", "What cannot be walked through cannot be proven.")
BAD_WHERE = _code("AM106", "A condition that cannot be", "No flow would ever begin, or every one would.")
END_ANSWERED = _code("AM107", "An end has answers", "After the end nothing more is expected but what undoes.")
RIVAL_ENDS = _code(
    "AM108", "Two participants may end it, one well and one undone", "Neither can know that the other has.", _WARNING
)
