"""Settings, profiles and screens by name, file and --set: an error names the nearest right word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.roles import build_roles
from configs.reading import SettingsError, merged, parse, parse_overrides
from manifests.screen import load_screen
from pipelines.engine.pipeline import Resources
from pipelines.engine.run import _without_values
from pipelines.engine.settings import Profile, Settings, StageResources
from pipelines.requests import Request, load_profile, prepare
from pipelines.talking_head import TalkingHeadSettings


def override(*texts: str) -> TalkingHeadSettings:
    return parse(TalkingHeadSettings, parse_overrides(texts), "--set")


def write(path: Path, values: Any) -> str:
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return str(path)


def laptop(**changes: Any) -> dict[str, Any]:
    """The laptop profile as YAML would give it, changed."""
    return merged(load_profile("laptop").model_dump(exclude_defaults=True), changes)


# --set.


@pytest.mark.parametrize(
    ("texts", "nested"),
    [
        ([], {}),
        (["seed=3"], {"seed": 3}),
        (["quality.fps=4", "quality.short_side=9", "split=true"],
         {"quality": {"fps": 4, "short_side": 9}, "split": True}),
        (["a.b.c=1", "a.b.d=x", "a.e=null"], {"a": {"b": {"c": 1, "d": "x"}, "e": None}}),
        (["clip_seconds=[2, 5.5]"], {"clip_seconds": [2, 5.5]}),
        (["seed=1", "seed=2"], {"seed": 2}),
        (["source=a=b"], {"source": "a=b"}),
        (["source="], {"source": None}),
        (["source='7'"], {"source": "7"}),
        (["source=@odd: {"], {"source": "@odd: {"}),
        ([" seed = 1"], {"seed": 1}),
    ],
)  # fmt: skip
def test_overrides_are_nested_yaml(texts: list[str], nested: dict[str, Any]) -> None:
    assert parse_overrides(texts) == nested


@pytest.mark.parametrize("text", ["seed", "=3", " =3", ""])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write key=value, for instance --set quality\.fps=4"):
        parse_overrides([text])


def test_a_value_cannot_have_keys_below_it() -> None:
    with pytest.raises(SettingsError, match=r"--set quality\.fps=2: quality was already given a value"):
        parse_overrides(["quality=1", "quality.fps=2"])


PART = st.text("abcdefgh_", min_size=1, max_size=5)
PATHS = st.lists(st.lists(PART, min_size=1, max_size=3).map(tuple), max_size=5, unique=True)
SCALARS = st.integers(-99, 99) | st.booleans() | st.floats(-9, 9).map(lambda v: round(v, 3)) | st.none()


@settings(derandomize=True, deadline=None, max_examples=150)
@given(PATHS, st.data())
def test_any_override_arrives_where_its_key_says(paths: list[tuple[str, ...]], data: Any) -> None:
    alone = [p for p in paths if not any(p != q and p == q[: len(p)] for q in paths)]
    values = {path: data.draw(SCALARS) for path in alone}
    nested = parse_overrides(
        [f"{'.'.join(p)}={yaml.safe_dump(v).split(chr(10))[0]}" for p, v in values.items()]
    )
    for path, value in values.items():
        here: Any = nested
        for part in path:
            here = here[part]
        assert here == value and type(here) is type(value)


def test_settings_have_their_types() -> None:
    made = override("quality.fps=4", "split=true", "clip_seconds=[3,10]", "seed=7", "source=mine")
    assert (made.quality.fps, made.split, made.clip_seconds, made.seed) == (4.0, True, (3.0, 10.0), 7)
    assert made.source == "mine" and made.faces == TalkingHeadSettings().faces


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("qualty.fps=4", "unknown key qualty; did you mean quality?"),
        ("quality.fsp=4", "unknown key quality.fsp; did you mean quality.fps?"),
        ("quality.short-side=4", "unknown key quality.short-side; did you mean quality.short_side?"),
        ("sead=4", "unknown key sead; did you mean seed?"),
        ("caption.zzz=4", "unknown key caption.zzz; there are: keep_source"),
        ("zzzzzz=1", "unknown key zzzzzz; there are: seed, source, sources, workers"),
    ],
)
def test_an_unknown_setting_names_the_nearest(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^--set: {re.escape(said)}"):
        override(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quality.fps=fast", "quality.fps: Input should be a valid number"),
        ("workers=0", "workers: Input should be greater than or equal to 1"),
        ("split=maybe", "split: Input should be a valid boolean"),
        ("clip_seconds=3", "clip_seconds: Input should be a valid tuple"),
        ("clip_seconds=[1]", "clip_seconds.1: Field required"),
        ("quality=3", "quality: Input should be a valid dictionary"),
        ("seed=1.5", "seed: Input should be a valid integer"),
    ],
)
def test_a_wrong_value_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^--set: {re.escape(said)}[^\n]*$"):
        override(text)


def test_every_wrong_setting_is_said() -> None:
    with pytest.raises(SettingsError) as caught:
        override("sead=1", "quality.fps=x")
    assert len(str(caught.value).splitlines()) == 2


def test_later_values_are_laid_over_earlier_ones() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"c": 4}, "e": 5}) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
    assert merged(base, {"a": 6, "d": {"x": 1}}) == {"a": 6, "d": {"x": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


# Files.


@pytest.mark.parametrize("load", [load_profile, load_screen])
def test_a_file_can_be_named_with_or_without_its_ending(load: Any, tmp_path: Path) -> None:
    name = "laptop" if load is load_profile else "talking_head"
    assert load(name) == load(f"{name}.yaml")
    copy = write(tmp_path / "mine.yml", load(name).model_dump(mode="json", exclude_none=True))
    assert load(copy) == load(name)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (load_profile, "no profile 'nothing': neither a file nor one of gpu, laptop"),
        (
            load_screen,
            "no screen 'nothing': neither a file nor one of commercial, portraits, portraits_gpu, ",
        ),
    ],
)
def test_an_unknown_name_lists_the_known_ones(load: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load("nothing")


@pytest.mark.parametrize("load", [load_profile, load_screen])
def test_a_folder_is_no_file(load: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"': a folder, not a file; one of "):
        load(str(tmp_path))


@pytest.mark.parametrize("load", [load_profile, load_screen])
@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [1", "is not valid YAML"), ("- 1\n", "must be a mapping"), ("", "must be a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused_by_name(
    load: Any, tmp_path: Path, content: str, said: str
) -> None:
    path = write(tmp_path / "x.yaml", content)
    with pytest.raises(SettingsError, match=f"{re.escape(path)} {said}"):
        load(path)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path / "x.yaml"))):
        load_screen(str(tmp_path / "x.yaml"))


RULE = {"reason": "r", "column": "fps", "min": 1, "source": "s"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "s", "rulez": []}, "unknown key rulez; did you mean rules?"),
        (
            {"name": "s", "rules": [RULE, RULE | {"colum": "x"}]},
            r"unknown key rules.1.colum; did you mean rules.1.column?",
        ),
        (
            {"name": "s", "rules": [RULE | {"maximum": 2}]},
            "unknown key rules.0.maximum; did you mean rules.0.max?",
        ),
        ({"name": "s", "rules": [RULE | {"min": "much"}]}, "rules.0.min: Input should be a valid number"),
        ({"name": "s", "rules": [{**RULE, "min": None}]}, "rules.0: rule r has no bound"),
        ({"name": "s"}, "rules: Field required"),
    ],
)
def test_what_is_wrong_in_a_screen_is_said(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "s.yaml", values)
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        load_screen(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rolls": {}}, "unknown key rolls; did you mean roles?"),
        (
            {"resources": {"head": {"cpu": 2}}},
            "unknown key resources.head.cpu; did you mean resources.head.cpus?",
        ),
        (
            {"resources": {"default": {"gpus": "all"}}},
            "resources.default.gpus: Input should be a valid number",
        ),
        ({"roles": {"pose": "mediapipe"}}, "roles.pose: Input should be"),
        ({"roles": {"pose": {"use": None}}}, "roles.pose.use: Input should be a valid string"),
    ],
)
def test_what_is_wrong_in_a_profile_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "p.yaml", laptop(**changes))
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        load_profile(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"face_detectr": {"use": "centerface"}}, "no role 'face_detectr'; did you mean 'face_detector'?"),
        ({"qqq": {"use": "x"}}, "no role 'qqq'; there are face_detector, face_mesh"),
        ({"face_detector": {"use": "centreface"}},
         "face_detector: there is no 'centreface'; choose one of centerface"),
        ({"face_detector": {"use": "centerface", "treshold": 1}},
         "centerface has no setting 'treshold'; did you mean 'threshold'?"),
    ],
)  # fmt: skip
def test_a_wrong_role_names_the_right_ones(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    profile = load_profile(write(tmp_path / "p.yaml", laptop(roles=changes)))
    with pytest.raises(ValueError, match=re.escape(said)):
        build_roles({name: choice.model_dump() for name, choice in profile.roles.items()})


def test_a_missing_role_is_named() -> None:
    roles = {n: c.model_dump() for n, c in load_profile("laptop").roles.items() if n != "pose"}
    with pytest.raises(ValueError, match="no implementation for the role 'pose'"):
        build_roles(roles)


def test_the_store_of_models_holds_no_secret_and_run_json_no_value_of_a_variable(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="has no user, password or query"):
        Settings(models="s3://KEY:SECRET@bucket/models")
    assert Settings(models="s3://bucket/models").models == "s3://bucket/models"
    env = {"env_vars": {"OPENAI_API_KEY": "sk-secret"}, "py_executable": "/opt/vllm/bin/python"}
    profile = Profile(name="p", roles={}, resources={"caption": StageResources(runtime_env=env)})
    said = _without_values(profile.model_dump(mode="json"))
    assert said["resources"]["caption"]["runtime_env"] == env | {"env_vars": {"OPENAI_API_KEY": "..."}}


def test_a_stage_that_waits_for_a_server_takes_nothing(tmp_path: Path) -> None:
    """Whatever the profile gives it for a model in the worker; beside a model of its own it keeps a place."""

    def of(*overrides: str) -> dict[str, Resources]:
        (tmp_path / "a.mp4").write_bytes(b"x")
        clip, output = str(tmp_path / "a.mp4"), tmp_path / "out"
        (run,) = prepare(Request("real_interactions", clip, output, "laptop", None, overrides))
        run.profile = run.profile.model_copy(
            update={
                "resources": {
                    "default": StageResources(cpus=4, gpus=0.25, threads=4),
                    "caption": StageResources(cpus=2, gpus=0.75),
                    "regions": StageResources(cpus=2, gpus=0.75),
                }
            }
        )
        return {step.name: run.resources_of(step) for step in run.program().steps}

    alone = of()
    assert (alone["caption"].gpus, alone["regions"].gpus) == (0.75, 0.75)
    assert (alone["faces"].cpus, alone["faces"].gpus, alone["faces"].concurrency) == (4, 0.25, 4)
    served = of("vlm.endpoint=http://127.0.0.1:9/v1", "vlm.model=m", "vlm.concurrency=8")
    assert served["caption"] == Resources(cpus=0, workers=1, concurrency=8)
    assert (served["regions"].cpus, served["regions"].gpus) == (4, 0.25)
    assert of("device=cpu")["faces"] == Resources(cpus=1)
