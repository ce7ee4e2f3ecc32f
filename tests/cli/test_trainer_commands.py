"""Commands that read a task: verify, checkpoint export, generate. Options, JSON, and every way to ask wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainer_cli import TrainerCommands, make_commands

from ledger.canonical import root_hex
from ledger.performance import bits_float, float_bits
from trainer.checkpoints import state_path
from trainer.commit.states import state_root
from trainer.engine import segment
from trainer.engine.engines import ReferenceEngine
from trainer.engine.sampling import sample
from trainer.engine.state import State, heldout_loss_bits, heldout_loss_of
from trainer.program.estimate import estimate


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerCommands:
    return make_commands(tmp_path, monkeypatch)


@pytest.fixture
def states(commands: TrainerCommands) -> list[State]:
    return commands.tiny.states(2)


def roots(states: list[State]) -> list[str]:
    return [root_hex(state_root(state.values())) for state in states]


def test_verify_json_has_every_documented_key(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states)
    said = commands.ask("verify", "1")
    assert list(said) == ["task", "agrees", "first_difference", "rounds"]
    assert (said["task"], said["agrees"], said["first_difference"]) == (1, True, None)
    for number, entry in enumerate(said["rounds"]):
        seconds = entry.pop("seconds")
        assert 0 < seconds < 60
        assert entry == {
            "round": number,
            "slot": 0,
            "merge": False,
            "worker": commands.client.address,
            "final": True,
            "verdict": "agrees",
            "problems": [],
            "submitted_root": roots(states)[number + 1],
            "replayed_root": roots(states)[number + 1],
            "steps": 4,
            "heldout_loss": bits_float(heldout_loss_bits(states[number + 1])),
            "stored": "whole",
            "stored_problem": "",
        }
    assert commands.signed == [False]


def test_verify_text_tells_each_round_and_what_is_not_final(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states, final=False)
    done = commands.run("verify", "1", "--all")
    first, second = done.stdout.splitlines()
    assert first.startswith("Round 0 (final, by 0xA1A1…A1A1): the replay of 4 steps gives the same state ")
    assert roots(states)[1] in first
    assert f"held-out loss {bits_float(heldout_loss_bits(states[1])):.4f} (" in first
    assert second.startswith("Round 1 (submitted, by 0xA1A1…A1A1): the replay")
    assert (done.exit_code, done.stderr) == (0, "")


def test_verify_false_loss_names_both_and_exits_4(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states[:2], loss=float_bits(0.25))
    done = commands.run("verify", "1", "--json")
    said = json.loads(done.stdout)
    assert (said["agrees"], said["first_difference"], done.exit_code) == (False, 0, 4)
    true = bits_float(heldout_loss_bits(states[1]))
    problem = f"the held-out loss is {true!r}, but 0.25 was submitted"
    assert said["rounds"][0]["problems"] == [problem]
    error = commands.fail(4, "verify", "1")
    assert error["problem"] == f"Round 0 of task 1 is false: {problem}."
    assert "Round 0 (final, by 0xA1A1…A1A1): DIFFERS: the held-out loss" in commands.run("verify", "1").stdout


def test_verify_store_without_any_state_is_not_checked(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states)
    for root in roots(states):
        (commands.store / state_path(bytes.fromhex(root[2:]))).unlink()
    done = commands.run("verify", "1", "--round", "1", "--json")
    (entry,) = json.loads(done.stdout)["rounds"]
    assert (entry["verdict"], entry["replayed_root"], entry["stored"]) == ("unchecked", None, "missing")
    error = json.loads(done.stderr)
    assert (error["error"], error["exit_code"]) == ("DataError", 4)
    assert error["problem"].startswith("Round 1 of task 1 was not checked: its base cannot be had: states/0x")
    assert error["remedy"] == "Name a store that has its base with --store, or check all rounds."


def test_verify_damaged_copy_of_a_true_round_exits_4(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states)
    path = commands.store / state_path(bytes.fromhex(roots(states)[2][2:]))
    path.write_bytes(path.read_bytes()[:-1])
    error = commands.fail(4, "verify", "1")
    assert error["error"] == "BlobCorrupt"
    assert error["problem"].startswith("The stored state of round 1 is corrupt: ")
    assert error["problem"].endswith("The submission itself replays.")
    assert "The store's copy of it is corrupt." in commands.run("verify", "1", "--round", "1").stdout


def test_verify_wrong_questions(commands: TrainerCommands, states: list[State]) -> None:
    assert "there is nothing to check" in commands.run("verify", "1").stderr
    assert commands.ask("verify", "1") == {"task": 1, "agrees": True, "first_difference": None, "rounds": []}
    commands.play(states[:2])
    error = commands.fail(2, "verify", "1", "--round", "0", "--all")
    assert error["problem"] == "--round and --all contradict each other."
    error = commands.fail(2, "verify", "1", "--round", "1")
    assert (error["problem"], error["remedy"]) == (
        "Round 1 of task 1 has no result yet; 1 rounds have.",
        "Name a round below 1.",
    )
    assert "UnknownTask(task=9)" in commands.fail(3, "verify", "9")["problem"]
    for words in (["verify", "0"], ["verify"], ["verify", "x"], ["verify", "1", "--round", "-1"]):
        assert commands.fail(2, *words)["remedy"] == "`trainledger verify --help` shows what it takes."
    error = commands.fail(2, "verify", "1", TRAINLEDGER_DEVICE="cuda:77")
    assert error["problem"].startswith("The device cuda:77 cannot be used: PyTorch sees ")


def test_verify_interrupted_says_so_and_keeps_what_it_found(
    commands: TrainerCommands, states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.play(states)
    rounds: list[int] = []

    def second_time(*_: object, **__: object) -> float:
        rounds.append(1)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return heldout_loss_of(states[1])

    monkeypatch.setattr(segment, "heldout_loss_of", second_time)
    done = commands.run("verify", "1")
    assert done.exit_code == 130
    assert done.stdout.count("Round 0 (final") == done.stdout.count("\n") == 1
    assert "Error: Interrupted." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "state"), [([], 2), (["--round", "0"], 1), (["--round", "1"], 2), (["--root"], 0)], ids=str
)
def test_export_writes_the_checkpoint_asked_for(
    commands: TrainerCommands, states: list[State], tmp_path: Path, options: list[str], state: int
) -> None:
    commands.play(states)
    words = [*options, roots(states)[state]] if options == ["--root"] else options
    said = commands.ask("checkpoint", "export", "1", "--to", str(tmp_path / "out"), *words)
    files = [path.name for path in Path("trainer/models").resolve().glob("*.py")]
    assert said == {
        "task": 1,
        "state_root": roots(states)[state],
        "heldout_loss": bits_float(heldout_loss_bits(states[state])),
        "folder": str(tmp_path / "out"),
        "files": sorted(
            ["README", "config.json", "heldout.bin", "measure.py", "model.safetensors", "tokenizer.json"]
            + [f"model/{name}" for name in files]
        ),
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["state_root"], config["step"]) == (roots(states)[state], 4 * state)
    text = commands.run("checkpoint", "export", "1", "--to", str(tmp_path / "out"), *words).stdout
    assert text.startswith(f"Wrote {roots(states)[state]} (held-out loss {said['heldout_loss']:.4f}) to ")


def test_export_before_any_round_is_the_first_state(
    commands: TrainerCommands, states: list[State], tmp_path: Path
) -> None:
    assert commands.ask("checkpoint", "export", "1", "--to", str(tmp_path / "o"))["state_root"] == roots(states)[0]
    error = commands.fail(2, "checkpoint", "export", "1", "--to", str(tmp_path / "p"), "--round", "0")
    assert error["problem"] == "Round 0 of task 1 has no checkpoint yet; none has."


def test_export_wrong_questions_write_nothing(commands: TrainerCommands, states: list[State], tmp_path: Path) -> None:
    commands.play(states[:2])
    to = ["checkpoint", "export", "1", "--to", str(tmp_path / "out")]
    error = commands.fail(2, *to, "--round", "0", "--root", roots(states)[0])
    assert error["problem"] == "--round and --root contradict each other."
    assert "rounds 0 to 0 have" in commands.fail(2, *to, "--round", "1")["problem"]
    assert commands.fail(2, *to, "--root", "0x12")["problem"] == "--root is '0x12', which is not a root."
    assert "the zero root" in commands.fail(2, *to, "--root", "0x" + "0" * 64)["problem"]
    error = commands.fail(4, *to, "--root", "0x" + "9" * 64)
    assert error["error"] == "BlobMissing"
    assert error["problem"].startswith("states/0x" + "9" * 64)
    assert "Missing option '--to'" in commands.fail(2, "checkpoint", "export", "1")["problem"]
    assert not (tmp_path / "out").exists()


def test_export_spares_what_is_not_an_export(commands: TrainerCommands, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    # As downloaded models look: the very names that an export has.
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README"):
        (theirs / name).write_text(f"their {name}")
    (tmp_path / "file").write_text("a file")
    for place in (theirs, tmp_path / "file"):
        error = commands.fail(2, "checkpoint", "export", "1", "--to", str(place))
        assert error["problem"] == f"{place} is no empty folder and holds no export."
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {
        name: f"their {name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "README")
    }


def test_export_killed_in_the_middle_is_done_again(
    commands: TrainerCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = commands.ask("checkpoint", "export", "1", "--to", str(tmp_path / "out"))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trainer.checkpoints.save_file", killed)
        assert commands.run("checkpoint", "export", "1", "--to", str(tmp_path / "out")).exit_code == 130
        assert commands.run("checkpoint", "export", "1", "--to", str(tmp_path / "new")).exit_code == 130
    # Neither passes for a whole one, and both are gone on with.
    for name in ("out", "new"):
        assert not (tmp_path / name / "config.json").exists()
        again = commands.ask("checkpoint", "export", "1", "--to", str(tmp_path / name))
        assert again == {**whole, "folder": str(tmp_path / name)}


def test_generate_json_and_text_are_the_engines_own(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states)
    words = ["generate", "--task", "1", "--prompt", "sea ", "--tokens", "12", "--seed", "5", "--top-k", "9"]
    generation = commands.tiny.program.generation
    assert generation is not None
    run = ReferenceEngine().open(generation)
    choices = {"vocabulary": 256, "tokens": 12, "temperature": 1.5, "top_k": 9, "seed": 5}
    added = sample(generation.program, run, states[2], b"sea ", **choices)
    text = (b"sea " + bytes(added)).decode(errors="replace")
    assert commands.ask(*words, "--temperature", "1.5") == {
        "task": 1,
        "state_root": roots(states)[2],
        "prompt": "sea ",
        "seed": 5,
        "text": text,
    }
    likeliest = [commands.ask(*words, "--temperature", "0", "--root", root)["text"] for root in roots(states)]
    rounds = [commands.ask(*words, "--temperature", "0", "--round", number)["text"] for number in ("0", "1")]
    assert rounds == likeliest[1:]
    assert commands.run(*words, "--temperature", "0").stdout.rstrip("\n") == likeliest[2].rstrip("\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--prompt", ""], "--prompt is empty; a model needs something to go on from."),
        (["--prompt", "\udcff"], "--prompt is not UTF-8 text."),
        (["--temperature", "nan"], "Invalid value for '--temperature': "),
        (["--temperature", "-1"], "Invalid value for '--temperature': "),
        (["--tokens", "0"], "Invalid value for '--tokens': "),
        (["--top-k", "0"], "Invalid value for '--top-k': "),
        (["--seed", str(2**63)], "Invalid value for '--seed': "),
        (["--round", "0"], "Round 0 of task 1 has no checkpoint yet; none has."),
    ],
)
def test_generate_wrong_questions(commands: TrainerCommands, words: list[str], problem: str) -> None:
    # What follows "Invalid value" is the option parser's own wording.
    assert commands.fail(2, "generate", "--task", "1", *words)["problem"].startswith(problem)


def test_generate_diverged_checkpoint_is_a_sentence(commands: TrainerCommands, states: list[State]) -> None:
    broken = type(states[1])((name, tensor.clone()) for name, tensor in states[1].items())
    broken["parameter.output.norm.weight"][0] = float("nan")
    commands.play([states[0], broken])
    error = commands.fail(2, "generate", "--task", "1")
    assert error["problem"] == "Nothing can be generated: the model's logits are not finite: its training diverged."
    assert error["remedy"] == "Try another --round or --temperature."


def test_commands_name_the_store_that_the_task_names(commands: TrainerCommands, tmp_path: Path) -> None:
    for words in (["verify", "1"], ["generate", "--task", "1"], ["checkpoint", "export", "1", "--to", "x"]):
        error = commands.fail(4, *words, TRAINLEDGER_STORE=str(tmp_path / "empty"))
        assert error["error"] == "BlobMissing"
        assert error["remedy"] == f"The task names the store {commands.store}: give that one with --store."


def test_program_cost_tells_what_a_round_takes_and_pays(commands: TrainerCommands) -> None:
    needed = estimate(commands.tiny.program)
    said = commands.ask("program", "cost", "1")
    assert said["program_root"] == root_hex(commands.tiny.program.root)
    assert (said["parameters"], said["memory_bytes"]) == (needed.parameters, needed.memory_bytes)
    assert (said["flops_per_step"], said["flops_to_measure"]) == (needed.flops_per_step, needed.flops_to_measure)
    work = needed.work_per_step * 4 + needed.work_to_measure
    assert said["seconds_per_round"] == pytest.approx(work / said["flops_per_second"])
    reward = commands.tiny.parameters.slot_reward
    assert int(said["reward_per_hour"]["wei"]) == int(reward * 3600 / max(said["seconds_per_round"], 1e-3))
    shown = commands.run("program", "cost", "1").stdout
    assert f"{needed.parameters:,}" in shown
    assert "GFLOP" in shown
    assert "UnknownTask(task=99)" in commands.fail(3, "program", "cost", "99")["problem"]
