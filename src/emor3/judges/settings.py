"""Settings of a judge: who judges, how it is asked, and where a server is."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from emor3.errors import UserError
from emor3.settings import Block

KEY_VARIABLE = "EMOR3_ENDPOINT_KEY"
"""The environment variable that holds the endpoint's key: recipes are saved and shared, so no key may stand there."""
KEY_HINT = f"set the environment variable {KEY_VARIABLE} instead"


class EndpointBlock(Block):
    """An OpenAI-compatible chat server that judges."""

    base_url: str
    """Up to and without `/chat/completions`, as in http://localhost:8000/v1."""
    model: str
    """The model's name on the server. It decodes by its checkpoint's own settings there, as with Qwen2.5-VL's
    repetition penalty, unless the server leaves these out: `vllm serve --generation-config vllm`.
    """
    timeout: float = Field(60.0, gt=0, le=86_400)
    """Seconds for one try, from its first to its last byte, and the longest wait that a server may ask for."""
    retries: int = Field(4, ge=0)
    """Further tries after a time-out, a lost connection, a rate limit or a server's error, each after a longer wait."""
    concurrency: int = Field(8, ge=1, le=1024)
    """Requests under way at once, on each process."""
    max_tokens: int = Field(16, ge=1)
    """Tokens at which a reply is cut."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """Ask for the probabilities of so many first tokens, on servers that give them; 0 reads the reply's text."""
    max_pixels: int = Field(401_408, ge=1024)
    """Larger images are sent scaled down to this area."""
    cache: str | None = None
    """Folder that keeps replies for later runs; None keeps them for this run only."""
    max_error_share: float = Field(0.1, ge=0, lt=1)
    """A run stops once the judge has failed on more than this share of 100 questions in a row."""

    @model_validator(mode="before")
    @classmethod
    def _names_no_key(cls, given: Any) -> Any:
        """A UserError of its own, because the general one repeats what it found, and messages end up in logs."""
        secret = ("key", "password", "secret", "authorization")
        for name in map(str, given if isinstance(given, dict) else ()):
            if any(word in name.lower() for word in secret):
                raise UserError(f"judge.endpoint.{name}: no key in a recipe, {KEY_HINT}")
        return given

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_key(cls, base_url: str) -> str:
        try:
            url = urlsplit(base_url)
            usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
        except ValueError:
            usable = False
        if not usable:
            raise UserError("judge.endpoint.base_url must be a web address such as http://localhost:8000/v1")
        if "@" in url.netloc or url.query or url.fragment:
            raise UserError(f"judge.endpoint.base_url: no user, query or key in it, {KEY_HINT}")
        return base_url.rstrip("/")


class JudgeBlock(Block):
    """Who judges, and how it is asked: by candidate probabilities (score) or by short replies (generate)."""

    model: Literal["policy", "reference", "ema", "checkpoint", "endpoint", "own"] = "policy"
    """The current policy (the paper), the start model as it was, a moving average of the policy, another model, a
    chat server, or a judge of one's own that is handed over in Python ([api.md](api.md))."""
    path: str | None = None
    """The other model, for `model: checkpoint`: a folder or a hub name. It stays as it is."""
    coherence: Literal["policy"] | None = None
    """Who reads the label from steps 1 and 2: the policy itself (self-answer); None is the judge of descriptions."""
    ema_decay: float = Field(default=0.98, ge=0, le=1)
    """Share of its own weights that the moving average keeps at each step."""
    every: int | None = Field(default=None, ge=1)
    """For `model: ema`: in place of moving, become a copy of the policy after every so many steps."""
    calibration: int = Field(default=32, ge=0)
    """Training images on which start model and judge are tried before the first step; 0 leaves that out."""
    backend: Literal["score", "generate"] = "score"
    """Ask by the probabilities of the possible replies (score), or by short replies (generate)."""
    batch_size: int = Field(default=256, ge=1)
    """Questions that the judge is asked at once, on each process."""
    endpoint: EndpointBlock | None = None
    """The chat server, for `model: endpoint`."""
    name: str | None = None
    """For `model: own`: its class as `module:class`. A run records it; if it is given, another one is refused."""
    sha256: str | None = None
    """For `model: own`: SHA-256 of the source text of its class, as for `name`."""

    @model_validator(mode="after")
    def _has_its_endpoint(self) -> Self:
        if (self.model == "endpoint") != (self.endpoint is not None):
            raise UserError("judge.model endpoint and the block judge.endpoint go together: give both or neither")
        return self

    @model_validator(mode="after")
    def _has_what_its_model_needs(self) -> Self:
        if (self.model == "checkpoint") != (self.path is not None):
            raise UserError("judge.model checkpoint and judge.path go together: give both or neither")
        if self.model != "own" and (self.name or self.sha256):
            raise UserError(f"judge.name and judge.sha256 are of judge.model own, not {self.model}: leave them out")
        if self.every is not None and self.model != "ema":
            raise UserError(f"judge.every refreshes a copy of the policy: it needs judge.model ema, not {self.model}")
        if self.coherence == "policy" and self.model == "policy":
            raise UserError(
                "judge.coherence policy is for another judge of descriptions: judge.model is policy already"
            )
        return self
