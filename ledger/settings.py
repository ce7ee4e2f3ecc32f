"""Settings, from command-line flags, then the environment, then a TOML file, then defaults.

The file is `config.toml` in the home folder, or the file that TRAINLEDGER_CONFIG names. Its keys are the public names
of `SETTINGS` below; relative paths in it are relative to the file. Secrets (password, private key) come from the
environment only and never show in a repr.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from ledger.amounts import parse_tokens
from ledger.errors import SettingsError, UsageError
from ledger.toml import parse_toml

__all__ = ["SETTINGS", "Setting", "Settings", "load_settings"]

_YEAR = 365 * 86_400  # the contracts take no longer period
_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,4})?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a command can be told from outside.

    Attributes:
        home: folder of keys, local chain, deployments and store.
        rpc_url: chain endpoint; None means the local chain on `chain_port`.
        chain_port: port on which `trainledger up` serves the local chain.
        deployment: folder (or deployment.json in it) of the deployment record; None means home/deployments/<chain id>.
        store_url: fsspec URL of the blob store.
        keystore: folder of encrypted keys.
        account: name or address of the account to act as.
        password_file: file whose first line is the key's password.
        poll_seconds: pause between two looks at the chain.
        confirmations: blocks that must follow a transaction's block before it counts.
        rpc_timeout: seconds after which an RPC call is given up.
        snapshot_seconds: longest training time lost by a kill.
        minimum_clock, minimum_move: seconds of a dispute's clocks in deployments made from here; None means what suits
            the chain.
        minimum_pay: wei a round must pay at full performance for a worker to take it.
        device: "cpu" or "cuda", with ":<number>" for one of several.
        threads: of the CPU that a program runs on; 0 takes all that there are. Results do not depend on it.
        ranks: processes that share the steps of programs with shards (docs/ranks.md). Results do not depend on it.
        engine: "compiled" (programs compiled to C where there is a compiler) or "reference" (slow, the definition).
        libraries: folder of compiled programs, which are run: nobody else may write to it. None means home/libraries.
        password, private_key: secrets from the environment; never shown.
    """

    home: Path
    rpc_url: str | None = field(default=None, repr=False)  # URLs may carry credentials
    chain_port: int = 8545
    deployment: Path | None = None
    store_url: str = field(repr=False)
    keystore: Path
    account: str | None = None
    password_file: Path | None = None
    poll_seconds: float = 1.0
    confirmations: int = 0
    rpc_timeout: float = 10.0
    snapshot_seconds: float = 10.0
    minimum_clock: int | None = None
    minimum_move: int | None = None
    minimum_pay: int = 0
    device: str = "cpu"
    threads: int = 0
    ranks: int = 1
    engine: str = "compiled"
    libraries: Path | None = None
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)

    @property
    def chain_url(self) -> str:
        """The endpoint to use: `rpc_url`, or the local chain's."""
        return self.rpc_url or f"http://127.0.0.1:{self.chain_port}"

    @property
    def library_folder(self) -> Path:
        """Folder of compiled programs."""
        return self.libraries or self.home / "libraries"

    @property
    def deployments(self) -> Path:
        """Folder with one deployment folder per chain id."""
        return self.home / "deployments"


@dataclass(frozen=True)
class Setting:
    """How one setting is written outside: TOML key `name`, variable `environment`, parsed into `target` of Settings."""

    name: str
    target: str
    parse: Callable[[object, str, Path], Any]
    help: str

    @property
    def environment(self) -> str:
        return "TRAINLEDGER_" + self.name.upper()


def _fail(name: str, value: object, wanted: str) -> SettingsError:
    return SettingsError(f"{name} is {value!r}, which is not {wanted}.", remedy=f"Give {wanted}.")


def _text(value: object, name: str, base: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _fail(name, value, "a text")
    return value.strip()


def _path(value: object, name: str, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise _fail(name, value, "a path")
    try:
        return (base / Path(value).expanduser()).absolute()
    except RuntimeError:  # ~somebody, whom this machine does not know
        raise _fail(name, value, "a path in a home folder that exists") from None


def _store(value: object, name: str, base: Path) -> str:
    text = str(value) if isinstance(value, Path) else _text(value, name, base)
    # fsspec does not undo percent encoding in file URLs, so the path stands in the URL as it is.
    return text if "://" in text or "::" in text else f"file://{_path(text, name, base)}"


def _url(value: object, name: str, base: Path) -> str:
    text = _text(value, name, base)
    if not text.startswith(("http://", "https://")):
        # The value is not repeated: it may hold credentials.
        raise SettingsError(
            f"{name} does not start with http:// or https://.", remedy="Write it like http://127.0.0.1:8545."
        )
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise SettingsError(f"{name} names no host.", remedy="Write it like http://127.0.0.1:8545.")
    return text


def _whole(least: int, most: int) -> Callable[[object, str, Path], int]:
    def parse(value: object, name: str, base: Path) -> int:
        wanted = f"a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _fail(name, value, wanted)
        try:
            number = int(value)
        except ValueError:
            raise _fail(name, value, wanted) from None
        if not least <= number <= most:
            raise _fail(name, value, wanted)
        return number

    return parse


def _seconds(least: float, most: float) -> Callable[[object, str, Path], float]:
    def parse(value: object, name: str, base: Path) -> float:
        wanted = f"a number of seconds from {least:g} to {most:g}"
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
            raise _fail(name, value, wanted)
        try:
            number = float(value)
        except (ValueError, InvalidOperation, OverflowError):
            raise _fail(name, value, wanted) from None
        if not least <= number <= most:  # also refuses NaN
            raise _fail(name, value, wanted)
        return number

    return parse


def _tokens(value: object, name: str, base: Path) -> int:
    try:
        return parse_tokens(value, what=name)
    except UsageError as error:
        raise SettingsError(error.problem, remedy=error.remedy) from None


def _device(value: object, name: str, base: Path) -> str:
    text = _text(value, name, base)
    if _DEVICE.fullmatch(text) is None:
        raise _fail(name, value, "cpu, cuda or cuda:<number>")
    return text


def _engine(value: object, name: str, base: Path) -> str:
    text = _text(value, name, base)
    if text not in ("compiled", "reference"):
        raise _fail(name, value, "compiled or reference")
    return text


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("home", "home", _path, "folder of keys, local chain, deployments and store"),
        Setting("rpc_url", "rpc_url", _url, "chain endpoint; the local chain when not set"),
        Setting("chain_port", "chain_port", _whole(1, 65535), "port of the local chain"),
        Setting("deployment", "deployment", _path, "folder of the deployment record"),
        Setting("store", "store_url", _store, "URL or folder of the blob store"),
        Setting("keystore", "keystore", _path, "folder of encrypted keys"),
        Setting("account", "account", _text, "name or address of the account to act as"),
        Setting("password_file", "password_file", _path, "file whose first line is the key's password"),
        Setting("poll_seconds", "poll_seconds", _seconds(0.01, 3600), "pause between two looks at the chain"),
        Setting("confirmations", "confirmations", _whole(0, 1000), "blocks that must follow a transaction"),
        Setting("rpc_timeout", "rpc_timeout", _seconds(0.1, 600), "seconds until an RPC call is given up"),
        Setting("snapshot_seconds", "snapshot_seconds", _seconds(0.1, 86400), "longest training time a kill may cost"),
        Setting(
            "minimum_clock", "minimum_clock", _whole(1, _YEAR), "least seconds of a side in a dispute, if one deploys"
        ),
        Setting("minimum_move", "minimum_move", _whole(1, _YEAR), "least seconds for each move, if one deploys"),
        Setting("minimum_pay", "minimum_pay", _tokens, "tokens a round must pay for a worker to take it"),
        Setting("device", "device", _device, "cpu, cuda, or one GPU of several, like cuda:1"),
        Setting("threads", "threads", _whole(0, 64), "CPU threads that programs run on; 0 takes all"),
        Setting("ranks", "ranks", _whole(1, 64), "processes that share the steps of programs with shards"),
        Setting("engine", "engine", _engine, "compiled, or reference: slow, the definition"),
        Setting("libraries", "libraries", _path, "folder of compiled programs, which nobody else may write"),
    )
}
_SECRETS = {"password": "TRAINLEDGER_PASSWORD", "private_key": "TRAINLEDGER_PRIVATE_KEY"}


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Merges all sources into one Settings.

    Args:
        flags: by field name of Settings or public name; None means "not given".
        environ: usually os.environ; an empty variable counts as not set.
        file: a settings file that must exist, instead of TRAINLEDGER_CONFIG or home/config.toml.

    Raises:
        SettingsError: an unknown key, a value of the wrong kind or range, or a file that cannot be read.
    """
    here = Path.cwd()
    given: dict[str, Any] = _from_flags(flags, here)
    secrets: dict[str, Any] = {name: environ.get(variable) or None for name, variable in _SECRETS.items()}
    if "password_file" in given:
        secrets["password"] = None  # the flag wins over the environment, also between two ways to say a password
    for setting in SETTINGS.values():
        if setting.target not in given and environ.get(setting.environment, ""):
            given[setting.target] = setting.parse(environ[setting.environment], setting.environment, here)
    home = given.get("home") or Path(platformdirs.user_data_dir("trainledger")).absolute()
    for target, value in _from_file(home, environ, file).items():
        given.setdefault(target, value)
    home = given.setdefault("home", home)
    given.setdefault("store_url", f"file://{home / 'store'}")
    given.setdefault("keystore", home / "keys")
    return Settings(**given, **secrets)


def _from_flags(flags: Mapping[str, object], here: Path) -> dict[str, Any]:
    by_target = {setting.target: setting for setting in SETTINGS.values()}
    given: dict[str, Any] = {}
    for key, value in flags.items():
        setting = by_target.get(key) or SETTINGS.get(key)
        if setting is None:
            raise SettingsError(f"There is no setting {key!r}.", remedy=_nearest(key))
        if value is not None:
            flag = "--" + setting.name.replace("_", "-")
            given[setting.target] = setting.parse(value, flag, here)
    return given


def _from_file(home: Path, environ: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    variable = environ.get("TRAINLEDGER_CONFIG")
    named = file or (_path(variable, "TRAINLEDGER_CONFIG", Path.cwd()) if variable else None)
    path = (named or home / "config.toml").absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(
            f"The settings file {path} does not exist.", remedy="Create it, or unset TRAINLEDGER_CONFIG."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from error
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}.") from error
    given: dict[str, Any] = {}
    for key, value in document.items():
        if key in _SECRETS:
            raise SettingsError(
                f"The settings file {path} holds {key!r}, and secrets do not belong there.",
                remedy=f"Set {_SECRETS[key]} in the environment, or name a file with password_file.",
            )
        setting = SETTINGS.get(key)
        if setting is None:
            raise SettingsError(f"The settings file {path} has an unknown key {key!r}.", remedy=_nearest(key))
        given[setting.target] = setting.parse(value, f"{key} in {path}", path.parent)
    return given


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known settings: {', '.join(SETTINGS)}."
