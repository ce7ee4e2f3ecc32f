from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import SettingsError
from ledger.settings import SETTINGS, load_settings

# For every setting: the values by flag, environment and file, and what each must become.
VALUES: dict[str, tuple[object, str, str, object, object, object]] = {
    "rpc_url": ("http://f:1", "http://e:1", '"http://t:1"', "http://f:1", "http://e:1", "http://t:1"),
    "chain_port": (1, "2", "3", 1, 2, 3),
    "deployment": (Path("/f"), "/e", '"/t"', Path("/f"), Path("/e"), Path("/t")),
    "store": ("s3://f", "/e", '"memory://t"', "s3://f", "file:///e", "memory://t"),
    "keystore": ("/f", "/e", '"/t"', Path("/f"), Path("/e"), Path("/t")),
    "account": ("f", "e", '"t"', "f", "e", "t"),
    "password_file": ("/f", "/e", '"/t"', Path("/f"), Path("/e"), Path("/t")),
    "poll_seconds": (0.5, "1.5", "2.5", 0.5, 1.5, 2.5),
    "confirmations": (1, "2", "3", 1, 2, 3),
    "rpc_timeout": (1, "2", "3", 1.0, 2.0, 3.0),
    "snapshot_seconds": (1, "2", "3.5", 1.0, 2.0, 3.5),
    "minimum_clock": (1, "2", "3", 1, 2, 3),
    "minimum_move": (1, "2", "3", 1, 2, 3),
    "minimum_pay": ("0.1", "2", "0.3", 10**17, 2 * 10**18, 3 * 10**17),
    "threads": (1, "2", "3", 1, 2, 3),
    "ranks": (2, "3", "4", 2, 3, 4),
    "engine": ("reference", "compiled", '"reference"', "reference", "compiled", "reference"),
    "libraries": ("/f", "/e", '"/t"', Path("/f"), Path("/e"), Path("/t")),
    "device": ("cpu", "cuda", '"cuda:1"', "cpu", "cuda", "cuda:1"),
}


def test_every_setting_has_a_precedence_example() -> None:
    assert set(VALUES) | {"home"} == set(SETTINGS)


@pytest.mark.parametrize("name", VALUES)
def test_load_settings_flag_over_environment_over_file(name: str, tmp_path: Path) -> None:
    flag, variable, toml, from_flag, from_environment, from_file = VALUES[name]
    target = SETTINGS[name].target
    (tmp_path / "config.toml").write_text(f"{name} = {toml}\n")
    environ = {SETTINGS[name].environment: variable}
    home: dict[str, object] = {"home": tmp_path}
    assert getattr(load_settings(home | {name: flag}, environ), target) == from_flag
    assert getattr(load_settings(home | {target: flag}, environ), target) == from_flag
    assert getattr(load_settings(home, environ), target) == from_environment
    assert getattr(load_settings(home, {SETTINGS[name].environment: ""}), target) == from_file
    (tmp_path / "config.toml").unlink()
    default = getattr(load_settings(home, {}), target)
    assert default not in (from_flag, from_environment, from_file) or name in (
        "device",
        "engine",
    )  # which have few values


def test_load_settings_defaults_hang_on_home(tmp_path: Path) -> None:
    settings = load_settings({}, {"TRAINLEDGER_HOME": str(tmp_path)})
    assert settings.home == tmp_path
    assert settings.keystore == tmp_path / "keys"
    assert settings.store_url == f"file://{tmp_path}/store"
    assert settings.deployments == tmp_path / "deployments"
    assert settings.chain_url == "http://127.0.0.1:8545"


def test_load_settings_home_flag_over_environment(tmp_path: Path) -> None:
    assert load_settings({"home": tmp_path / "a"}, {"TRAINLEDGER_HOME": str(tmp_path / "b")}).home == tmp_path / "a"


def test_load_settings_file_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "mine.toml"
    file.parent.mkdir()
    file.write_text('home = "h"\nkeystore = "k"\nstore = "s"\n')
    settings = load_settings({}, {"TRAINLEDGER_CONFIG": str(file)})
    assert settings.home == file.parent / "h"
    assert settings.keystore == file.parent / "k"
    assert settings.store_url == f"file://{file.parent / 's'}"


def test_load_settings_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('rpc_ulr = "http://x"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {})
    assert "'rpc_ulr'" in caught.value.problem
    assert caught.value.remedy == "Did you mean 'rpc_url'?"


def test_load_settings_unknown_key_far_from_all_lists_them(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("zzz = 1\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {})
    assert "chain_port" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain_port", "0"),
        ("chain_port", "70000"),
        ("chain_port", "x"),
        ("confirmations", "1.5"),
        ("poll_seconds", "nan"),
        ("poll_seconds", "-1"),
        ("poll_seconds", "soon"),
        ("confirmations", "-1"),
        ("minimum_pay", "1e3"),
        ("minimum_pay", "-1"),
        ("minimum_pay", "0.0000000000000000001"),
        ("device", "tpu"),
        ("device", "cuda:x"),
        ("rpc_url", "localhost:8545"),
        ("keystore", "  "),
    ],
)
def test_load_settings_wrong_value_names_the_source(name: str, value: str, tmp_path: Path) -> None:
    variable = SETTINGS[name].environment
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {variable: value})
    assert variable in caught.value.problem
    assert caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("toml", ["chain_port = true", "confirmations = 1.0", "account = 5", "minimum_pay = true"])
def test_load_settings_wrong_type_in_file_names_the_file(toml: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {})
    assert str(tmp_path / "config.toml") in caught.value.problem


def test_load_settings_broken_file_says_where(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("a = = 1\n")
    with pytest.raises(SettingsError, match=r"not valid TOML: .*line 1"):
        load_settings({"home": tmp_path}, {})


def test_load_settings_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings({}, {"TRAINLEDGER_CONFIG": str(tmp_path / "no.toml")})
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings({}, {}, tmp_path / "no.toml")


def test_load_settings_unknown_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no setting 'hoem'"):
        load_settings({"hoem": "x"}, {})


@pytest.mark.parametrize("key", ["password", "private_key"])
def test_load_settings_secret_in_file_is_refused_unseen(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'{key} = "hunter2"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {})
    assert "hunter2" not in str(caught.value)
    assert f"TRAINLEDGER_{key.upper()}" in caught.value.remedy


def test_settings_repr_hides_secrets_and_urls(tmp_path: Path) -> None:
    environ = {
        "TRAINLEDGER_PASSWORD": "hunter2",
        "TRAINLEDGER_PRIVATE_KEY": "ab" * 32,
        "TRAINLEDGER_RPC_URL": "https://user:topsecret@node/key",
        "TRAINLEDGER_STORE": "s3://id:topsecret@bucket",
    }
    settings = load_settings({"home": tmp_path}, environ)
    assert (settings.password, settings.private_key) == ("hunter2", "ab" * 32)
    shown = repr(settings)
    assert "hunter2" not in shown
    assert "abab" not in shown
    assert "topsecret" not in shown


def test_load_settings_wrong_url_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"home": tmp_path}, {"TRAINLEDGER_RPC_URL": "wss://user:topsecret@node"})
    assert "topsecret" not in str(caught.value)


def test_load_settings_password_file_flag_wins_over_password_variable(tmp_path: Path) -> None:
    environ = {"TRAINLEDGER_PASSWORD": "hunter2", "TRAINLEDGER_PASSWORD_FILE": "/e"}
    assert load_settings({"home": tmp_path}, environ).password == "hunter2"
    assert load_settings({"home": tmp_path, "password_file": "/f"}, environ).password is None
