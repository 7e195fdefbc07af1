"""One chat request to an OpenAI-compatible endpoint: OpenAI, Gemini, vLLM, Ollama, ..."""

import base64
import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np

from scaffoldlab.errors import ScaffoldError

QueryKind = Literal["elicitation", "keypoints", "trajectory"]

_DEFAULT_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to a model.

    Attributes:
        kind: Which prompt it is.
        task: Name of the task, or its description for ``"elicitation"``.
        seed: Seed of the plan library.
        index: Number of the plan.
        turn: 0 for the prompt, 1 for the first repair, ...
        sample: Number of the answer, when several are asked for; an endpoint is not told.
        model: Model as the endpoint names it.
        parameters: Further keys of the request, e.g. ``{"temperature": 0.5}``.
        messages: Messages in the OpenAI form, an image as the URL ``sha256:<digest>``.
        images: Images by that URL, shape (height, width, 3), uint8.
        points: Point convention of a keypoint query.
        repairs: Id of the rejected reply that this call asks to repair.
    """

    kind: QueryKind
    task: str
    seed: int
    index: int
    turn: int = 0
    sample: int = 0
    model: str
    parameters: Mapping[str, Any]
    messages: tuple[dict[str, Any], ...]
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    points: str | None = None
    repairs: str | None = None

    @cached_property
    def key(self) -> str:
        """Digest of the request alone: equal for equal model, messages, image pixels and parameters."""
        request = {"model": self.model, "messages": self.messages, "parameters": dict(self.parameters)}
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered, and what that took.

    Attributes:
        text: The answer, untrusted.
        finish: Why it ended, ``"length"`` if it was cut off.
        tokens_in: Tokens of the prompt, None if the endpoint did not say.
        tokens_out: Tokens of the answer and the thinking, None if the endpoint did not say.
        seconds: Time that the request took [s].
        cost_usd: Its price, None if unknown.
        attempt: How often the same request had failed before.
        id: Id of its record in the ledger.
        recorded: It was read from a ledger, not paid for.
        exact: The recorded request was equal; otherwise only plan, query and turn were.
    """

    text: str
    finish: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = 0.0
    cost_usd: float | None = None
    attempt: int = 0
    id: str = ""
    recorded: bool = False
    exact: bool = True

    def share(self, plans: int) -> "Reply":
        """The part of it that falls to one of several plans that it answers: tokens and price."""
        tokens = (None if t is None else round(t / plans) for t in (self.tokens_in, self.tokens_out))
        cost = None if self.cost_usd is None else self.cost_usd / plans
        return replace(self, **dict(zip(("tokens_in", "tokens_out"), tokens, strict=True)), cost_usd=cost)


class EndpointError(ScaffoldError):
    """A request that got no reply.

    Attributes:
        retryable: The same request may succeed later.
        retry_after: Seconds that the endpoint asks to wait before [s], or None.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after


class ChatEndpoint(Protocol):
    """Answers one request; safe to call from several threads."""

    model: str

    def complete(self, call: Call) -> Reply:
        """Returns the reply to one attempt, or raises an EndpointError."""
        ...


class OpenAIEndpoint:
    """An endpoint that speaks ``/chat/completions``, through the ``openai`` client.

    The key is read from SCAFFOLDLAB_API_KEY or OPENAI_API_KEY, and is kept out of every message and reply.

    Args:
        base_url: E.g. ``http://localhost:8000/v1``; without it SCAFFOLDLAB_BASE_URL or OPENAI_BASE_URL, then OpenAI's.
        model: Model as the endpoint names it; without it SCAFFOLDLAB_MODEL.
        timeout_s: How long to wait for the endpoint to send something [s].

    Raises:
        ScaffoldError: There is no model, or neither an endpoint nor a key.
    """

    def __init__(self, base_url: str | None = None, model: str | None = None, *, timeout_s: float = 120.0) -> None:
        import openai

        url = base_url or os.environ.get("SCAFFOLDLAB_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
        self._key = (os.environ.get("SCAFFOLDLAB_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ScaffoldError(
                "vlm planner: the key in SCAFFOLDLAB_API_KEY or OPENAI_API_KEY has characters that no key has "
                "(not shown here); allowed: printable ASCII. Copy it again."
            )
        if not url and not self._key:
            raise ScaffoldError(
                "vlm planner: there is no endpoint. Give a base URL (SCAFFOLDLAB_BASE_URL, e.g. "
                "http://localhost:11434/v1 for Ollama, which needs no key), or set SCAFFOLDLAB_API_KEY for OpenAI."
            )
        parts = urlsplit(url or _DEFAULT_URL)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ScaffoldError(
                f"vlm planner: the base URL is {self._scrub(url or '')!r}; allowed: http://... or https://..., "
                "usually ending in /v1."
            )
        name = model or os.environ.get("SCAFFOLDLAB_MODEL")
        if not name:
            raise ScaffoldError(
                "vlm planner: there is no model. Give its name or set SCAFFOLDLAB_MODEL, e.g. gemini-2.5-flash."
            )
        self.model = name
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.timeout_s = timeout_s
        # Retries are ours: each attempt is counted and kept in the ledger.
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=url or _DEFAULT_URL, timeout=timeout_s, max_retries=0
        )

    def complete(self, call: Call) -> Reply:
        """Sends one request.

        Raises:
            EndpointError: No connection, no answer in time, a status of refusal, or no chat completion in the answer.
        """
        import openai

        urls = {url: png_data_url(image) for url, image in call.images.items()}
        start = time.monotonic()
        # Raised from None: the client's error holds the request, and with it the key.
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=call.model,
                messages=_with_images(call.messages, urls),  # pyright: ignore[reportArgumentType]
                extra_body=dict(call.parameters),
            )
            body = raw.http_response.text
        except openai.APITimeoutError:
            raise EndpointError(
                f"{self.url}: no answer within {self.timeout_s:g} s. Raise the timeout or lower the concurrency.",
                retryable=True,
            ) from None
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{self.url}: no connection ({self._quote(str(error.__cause__ or error))}). "
                "Check that the endpoint runs and that the base URL is right.",
                retryable=True,
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.response.headers, error.response.text) from None
        except openai.OpenAIError as error:
            raise EndpointError(f"{self.url}: {self._quote(str(error))}") from None
        seconds = time.monotonic() - start
        return self._reply(body, seconds)

    def _refusal(self, status: int, headers: Mapping[str, str], body: str) -> EndpointError:
        steps = {
            400: f"Check that model {self.model!r} takes images and the parameters that are set.",
            401: "Set SCAFFOLDLAB_API_KEY (or OPENAI_API_KEY) to a key of this endpoint.",
            403: "Set SCAFFOLDLAB_API_KEY (or OPENAI_API_KEY) to a key that may use this model.",
            404: f"Check the base URL (it usually ends in /v1) and that it serves model {self.model!r}.",
            429: "Wait, lower the concurrency, or raise the endpoint's quota.",
        }
        step = steps.get(status, "Try again later." if status >= 500 else "Check the model and its parameters.")
        # A quota that is used up is a 429 too, but waiting does not bring it back.
        retryable = (status in (408, 409, 429) or status >= 500) and "insufficient_quota" not in body
        return EndpointError(
            f"{self.url}: status {status} ({self._quote(_error_message(body))}). {step}",
            retryable=retryable,
            retry_after=_retry_after(headers),
        )

    def _reply(self, body: str, seconds: float) -> Reply:
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            message = choice["message"]
            content = message["content"] or message.get("refusal") or ""
            if isinstance(content, list):  # some endpoints answer in parts
                content = "".join(part.get("text") or "" for part in content)
            if not isinstance(content, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise EndpointError(
                f"{self.url}: the answer is no chat completion ({self._quote(_error_message(body)) or 'empty'}). "
                "Check the base URL: it usually ends in /v1."
            ) from None
        usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        prompt, answer, total = (_count(usage.get(f"{n}_tokens")) for n in ("prompt", "completion", "total"))
        if prompt is not None and answer is not None:
            answer = max(answer, (total or 0) - prompt)  # Gemini counts thinking in the total only
        finish = choice.get("finish_reason")
        return Reply(
            text=self._scrub(content).encode(errors="replace").decode(),  # JSON can hold half a surrogate pair
            finish=finish if isinstance(finish, str) else None,
            tokens_in=prompt,
            tokens_out=answer,
            seconds=round(seconds, 3),
        )

    def _scrub(self, text: str) -> str:
        # Endpoints echo the key in their refusals. A placeholder such as "none" is no secret.
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text

    def _quote(self, text: str) -> str:
        """A foreign text for a message: without the key, on one line, short and printable."""
        line = "".join(c if c.isprintable() else " " for c in self._scrub(text))
        line = " ".join(line.split())
        return line if len(line) <= 200 else f"{line[:200]} ..."


def image_url(image: np.ndarray) -> str:
    """The name of an image in messages: digest of its size and pixels, shape (height, width, 3), uint8."""
    return f"sha256:{hashlib.sha256(f'{image.shape}'.encode() + image.tobytes()).hexdigest()}"


def png_data_url(image: np.ndarray) -> str:
    """The image as a PNG in a data URL, shape (height, width, 3), uint8."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _with_images(messages: tuple[dict[str, Any], ...], urls: Mapping[str, str]) -> list[dict[str, Any]]:
    """The messages with each image's name replaced by its data."""

    def sent(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "image_url": {"url": urls[part["image_url"]["url"]]}} if "image_url" in part else part

    return [m if isinstance(m["content"], str) else {**m, "content": [sent(p) for p in m["content"]]} for m in messages]


def _error_message(body: str) -> str:
    """What a body says is wrong: the message of an error object, the title of a page, or its text."""
    try:
        data = json.loads(body)
        data = data[0] if isinstance(data, list) and data else data  # Gemini wraps its errors in a list
        error = data.get("error", data) if isinstance(data, dict) else data
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    if title := re.search(r"<title>([^<]*)</title>", body, re.IGNORECASE):
        return f"an HTML page titled {title[1].strip()!r}"
    return "an HTML page" if re.match(r"\s*<(!doctype|html)", body, re.IGNORECASE) else body[:400]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
