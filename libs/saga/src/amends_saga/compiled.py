"""A saga that is ready to run: its plan, expressions and messages. It is always loaded from a bundle.

Called by the orchestrator for every step of a run, by the explorer and by the CLI. Implements `plan.Expressions`.
"""

from functools import cached_property
from hashlib import sha256
from typing import Any

from amends_contracts.wellknown import ALWAYS
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from amends_saga.bundle import Bundle, BundleError, read_bundle
from amends_saga.cel import Checked, Environment, Program
from amends_saga.descriptors import RUN_MESSAGE, DescriptorError, build_pool, with_well_known
from amends_saga.descriptors.attributes import renamed
from amends_saga.jsonform import InputError, JsonInput, check_depth, parse_json, recursive, require, show_json
from amends_saga.plan import ExpressionError, Plan, Scope, StepPlan

__all__ = ["CompiledSaga", "InputError", "load_bundle"]


class CompiledSaga:
    """One version of a saga. Pure and safe to share between runs; expressions are compiled at their first use."""

    def __init__(self, bundle: Bundle, data: bytes) -> None:
        """Load a bundle and its bytes. Raises BundleError when its descriptors cannot be used."""
        self._bundle = bundle
        self.bundle = data
        """Everything that a later owner needs; `load_bundle` reads it."""
        self.digest = sha256(data).hexdigest()
        self._made: dict[tuple[int, str], type[Message]] = {}
        self._last: tuple[bytes, Message] | None = None
        """The input that was read last: a request and its compensation are evaluated one after the other."""
        files = with_well_known(bundle.files, ALWAYS).values()
        other = renamed(files)
        try:
            self._pool = build_pool(files)
            self._forms = build_pool(other) if other is not None else self._pool
            variables = {"saga": RUN_MESSAGE, "input": bundle.input_type}
            variables |= {step.name: step.action.output_type for step in bundle.steps}
            self._classes = {name: self._class(type_) for name, type_ in variables.items()}
        except (DescriptorError, KeyError, RecursionError):
            raise BundleError("The descriptors of the compiled saga cannot be used.") from None
        self._environment = Environment(self._pool, variables)
        self._programs: dict[tuple[int, str], Program] = {}

    @cached_property
    def plan(self) -> Plan:
        """Return the plan that the engine works with."""
        steps = tuple(
            StepPlan(
                name=step.name,
                action=step.action.plan,
                compensation=step.compensation.plan if step.compensation is not None else None,
                after=step.after,
                pivot=step.pivot,
                post=step.post,
                amendment=step.amendment,
                has_when=step.when is not None,
                uses=step.uses,
            )
            for step in self._bundle.steps
        )
        bundle = self._bundle
        return Plan(bundle.namespace, bundle.saga, self.digest, steps, bundle.deadline, bundle.stalled_after)

    def warm(self) -> None:
        """Compile every expression now. Raises ExpressionError for one that this version cannot compile."""
        for index, step in enumerate(self._bundle.steps):
            self._program(index, "request")
            if step.when is not None:
                self._program(index, "when")
            if step.compensation is not None:
                self._program(index, "compensation")

    @property
    def input_descriptor(self) -> Descriptor:
        """Return the descriptor of the input message."""
        return self._descriptor(self._bundle.input_type)

    @property
    def required_input(self) -> tuple[str, ...]:
        """Return paths of input fields that must be set, because a step copies them in every run."""
        return self._bundle.required

    def request_descriptor(self, index: int) -> Descriptor:
        """Return the descriptor of the message that a step's action takes."""
        return self._descriptor(self._bundle.steps[index].action.input_type)

    def response_descriptor(self, index: int) -> Descriptor:
        """Return the descriptor of the message that a step's action answers with."""
        return self._descriptor(self._bundle.steps[index].action.output_type)

    def compensation_request_descriptor(self, index: int) -> Descriptor:
        """Return the descriptor of a compensation's request. Raises LookupError without a compensation."""
        return self._descriptor(self._compensation(index).input_type)

    def when(self, index: int, scope: Scope) -> bool:
        """Return whether the step runs at all; True when it has no condition. Raises ExpressionError."""
        if self._bundle.steps[index].when is None:
            return True
        program = self._program(index, "when")
        return program.condition(self._data(program, scope))

    def request(self, index: int, scope: Scope) -> bytes:
        """Return the action's request, serialised deterministically. Raises ExpressionError."""
        program = self._program(index, "request")
        return program.message(self._data(program, scope))

    def compensation(self, index: int, scope: Scope) -> bytes:
        """Return the compensation's request, serialised deterministically. Raises ExpressionError, LookupError."""
        program = self._program(index, "compensation")
        return program.message(self._data(program, scope))

    def parse_input(self, json: JsonInput) -> bytes:
        """Return the input of canonical protobuf JSON, serialised deterministically.

        Raises InputError with the path of the field that is wrong.
        """
        return self._accepted(parse_json(json, self._form(self._bundle.input_type), self._forms))

    def check_input(self, data: bytes) -> bytes:
        """Return a serialised input, checked and made deterministic. Raises InputError."""
        try:
            message = self._form(self._bundle.input_type).FromString(data)
        except DecodeError:
            raise InputError("", f"The bytes are no {self._bundle.input_type}.") from None
        if self._input_recursive:
            check_depth(message)
        return self._accepted(message)

    @cached_property
    def _input_recursive(self) -> bool:
        return recursive(self.input_descriptor)

    def parse_response(self, index: int, json: JsonInput) -> bytes:
        """Return a step's response of canonical protobuf JSON: a person gives it for a step that is skipped.

        Raises InputError with the path of the field that is wrong.
        """
        message = parse_json(json, self._form(self._bundle.steps[index].action.output_type), self._forms)
        require(message, ())
        return message.SerializeToString(deterministic=True)

    def input_json(self, data: bytes, *, redact: bool = True) -> dict[str, Any]:
        """Return an input as canonical protobuf JSON; fields marked `debug_redact` are hidden unless asked for."""
        return self._show(self._bundle.input_type, data, redact)

    def to_json(self, index: int, data: bytes, *, redact: bool = True) -> dict[str, Any]:
        """Return a step's response as canonical protobuf JSON; fields marked `debug_redact` are hidden."""
        return self._show(self._bundle.steps[index].action.output_type, data, redact)

    def request_json(
        self, index: int, data: bytes, *, compensation: bool = False, redact: bool = True
    ) -> dict[str, Any]:
        """Return a request, of the action or the compensation, as canonical protobuf JSON, redacted."""
        call = self._compensation(index) if compensation else self._bundle.steps[index].action
        return self._show(call.input_type, data, redact)

    def _show(self, name: str, data: bytes, redact: bool) -> dict[str, Any]:
        return show_json(self._form(name), data, redact=redact, pool=self._forms)

    def _accepted(self, message: Message) -> bytes:
        require(message, self._bundle.required)
        return message.SerializeToString(deterministic=True)

    def _compensation(self, index: int) -> Any:
        call = self._bundle.steps[index].compensation
        if call is None:
            raise LookupError(f"step {self._bundle.steps[index].name} has no compensation")
        return call

    def _descriptor(self, name: str) -> Descriptor:
        return self._pool.FindMessageTypeByName(name)

    def _class(self, name: str) -> type[Message]:
        return self._of_pool(self._pool, name)

    def _form(self, name: str) -> type[Message]:
        """Return the class for a message's JSON: without fields whose names hide attributes of every message."""
        return self._of_pool(self._forms, name)

    def _of_pool(self, pool: DescriptorPool, name: str) -> type[Message]:
        made = self._made.get((id(pool), name))
        if made is None:
            made = self._made[id(pool), name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        return made

    def _program(self, index: int, role: str) -> Program:
        key = (index, role)
        if key not in self._programs:
            step = self._bundle.steps[index]
            text, service, made = self._text(index, role)
            container = service.rpartition(".")[0]
            checked = self._environment.compile(text, container)
            name = f"the {role} of step {step.name}" if role != "when" else f"the condition of step {step.name}"
            if not isinstance(checked, Checked):
                raise ExpressionError(f"{name} cannot be compiled by this version")
            gives = self._class(made) if made is not None else None
            self._programs[key] = Program.of(name, checked, self._environment, container, gives)
        return self._programs[key]

    def _text(self, index: int, role: str) -> tuple[str, str, str | None]:
        """Return an expression, the service that it belongs to, and the message that it makes."""
        step = self._bundle.steps[index]
        if role == "when":
            return step.when or "true", step.action.plan.service, None
        call = step.action if role == "request" else self._compensation(index)
        return call.request, call.plan.service, call.input_type

    def _data(self, program: Program, scope: Scope) -> dict[str, Message]:
        return {name: self._value(name, program, scope) for name in program.uses}

    def _value(self, name: str, program: Program, scope: Scope) -> Message:
        made = self._classes[name]
        try:
            if name == "input":
                if self._last is None or self._last[0] is not scope.input:
                    self._last = scope.input, made.FromString(scope.input)
                return self._last[1]
            if name == "saga":
                run: Any = made(run_id=scope.run_id, name=scope.saga, idempotency_key=scope.idempotency_key)
                run.started_at.FromDatetime(scope.started_at)
                return run  # type: ignore[no-any-return]
            data = scope.responses.get(self.plan.index[name])
            return made() if data is None else made.FromString(data)
        except (DecodeError, ValueError) as error:
            raise ExpressionError(f"{program.name} cannot read `{name}`") from error


def load_bundle(data: bytes) -> CompiledSaga:
    """Return the compiled saga of these bytes. Raises BundleError."""
    return CompiledSaga(read_bundle(data), data)
