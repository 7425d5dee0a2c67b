"""The registry: every method has valid params, names are chosen as asked, peers keep their own knobs."""

from pathlib import Path

import pytest

from effivmt.benchmark.methods import ALL, METHODS, OURS, choose
from effivmt.benchmark.peers import PEERS, identity, is_of_peer, peer_params, read_peers, tunes
from effivmt.errors import ParamsError
from effivmt.params_file import load_params

FILE = Path(__file__).parents[3] / "params.yaml"


def names(*arguments: list[str]) -> list[str]:
    return [method.name for method in choose(*arguments)]


class TestRegistry:
    @pytest.mark.parametrize("name", METHODS)
    def test_every_method_has_params_that_differ_as_it_says(self, name):
        method, base = METHODS[name], load_params(FILE)
        params = method.params(FILE)
        assert not params.render.baseline
        changed = {
            f"{section}.{key}"
            for section, values in params.model_dump().items()
            if isinstance(values, dict)
            for key, value in values.items()
            if value != base.model_dump()[section].get(key)
        }
        assert changed <= {override.split("=")[0] for override in method.overrides} | {"render.baseline"}
        assert method.against in METHODS and METHODS[OURS].overrides == ()

    def test_an_ablation_stays_one_under_the_users_params(self):
        params = METHODS["pixel-none"].params(FILE, ("temporal.rope=paper", "temporal.rank=3"))
        assert (params.temporal.rope, params.temporal.rank, params.sampling.mode) == ("none", 3, "pixel")


class TestChoose:
    def test_without_names_all_methods(self):
        kinds = {METHODS[name].kind for name in names([], [])}
        assert kinds == {"method"} and names([], []) == names([ALL], [])

    def test_ours_and_what_a_method_is_compared_with_come_along(self):
        assert names(["smm"], []) == [OURS, "smm"]
        assert names([], ["pixel-none"]) == [OURS, "pixel", "pixel-none"]

    def test_all_ablations_are_all_but_the_sweeps(self):
        chosen = names([], [ALL])
        assert {METHODS[name].kind for name in chosen} == {"method", "ablation", "control"}
        swept = set(names([], ["sweep"])) - {OURS}
        assert swept == {name for name, method in METHODS.items() if method.kind == "sweep"}

    @pytest.mark.parametrize(
        ("methods", "ablations", "message"),
        [
            (["fly"], [], "--method fly: there is no such name; expected one of all, effivmt, backbone"),
            ([], ["smm"], "--ablation smm: .*without-decoupling.*random-split"),
            (["fast"], [], "--method fast: "),
        ],
    )
    def test_an_unknown_name_lists_those_there_are(self, methods, ablations, message):
        with pytest.raises(ParamsError, match=message):
            choose(methods, ablations)


class TestAdded:
    def test_variants_of_one_name_are_one_method_beside_ours(self):
        ours, long, wide = choose([], [], ["long:temporal.steps=9", "wide:temporal.rank=3", "long:temporal.batch=2"])
        assert (ours.name, long.name, wide.name) == (OURS, "long", "wide") and long.kind == "variant"
        assert long.overrides == ("temporal.steps=9", "temporal.batch=2")
        assert long.params(FILE).temporal.steps == 9 and wide.params(FILE).temporal.rank == 3

    @pytest.mark.parametrize(
        ("variants", "message"),
        [
            (["temporal.steps=9"], "is not of the form NAME:section.key=value"),
            (["a b:temporal.steps=9"], "is not of the form"),
            (["long:temporal.steps"], "is not of the form"),
            (["fast:temporal.steps=9"], "two methods of the name fast"),
            (["mine:smm.adam_steps=9"], "of a peer's params"),
        ],
    )
    def test_a_wrong_variant_is_named(self, variants, message):
        with pytest.raises(ParamsError, match=message):
            choose([], [], variants)

    def test_a_file_is_a_method_with_params_of_its_own(self, tmp_path):
        file = tmp_path / "own_method.py"
        file.write_text(
            "from effivmt.config import Section\n\nclass MethodParams(Section):\n    weight: float = 1.0\n\n"
            "def generate(request, params): ...\n"
        )
        _, own = choose([str(file)], [])
        assert (own.name, own.kind, own.maker) == ("own-method", "method", "file")
        assert peer_params(own.peer, {}, ("own_method.weight=2",)).weight == 2.0 and not tunes(own.peer)
        before = identity(own.peer)
        file.write_text(file.read_text() + "# changed\n")
        assert identity(own.peer) != before and identity("smm") == "smm"

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("absent.py", None, "there is no such file"),
            ("my-method.py", "", "rename the file"),
            ("smm.py", "", "smm is taken"),
            ("broken_method.py", "def generate(", "cannot be imported.*SyntaxError"),
            ("empty_method.py", "def generate(): ...\n", "needs a class MethodParams"),
        ],
    )
    def test_a_wrong_file_is_named(self, tmp_path, name, text, message):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ParamsError, match=message):
            peer_params(choose([str(tmp_path / name)], [])[1].peer, {})


class TestPeers:
    def test_authors_values_then_the_file_then_the_command(self, tmp_path):
        (tmp_path / "peers.yaml").write_text("smm: {adam_steps: 4, guided_share: 0.5}\n")
        tree = read_peers(tmp_path / "peers.yaml")
        found = peer_params("smm", tree, ("smm.adam_steps=3",))
        assert (found.adam_steps, found.guided_share) == (3, 0.5)
        assert peer_params("ditflow", tree).adam_steps == 5

    @pytest.mark.parametrize("peer", PEERS)
    def test_every_peer_has_params(self, peer):
        assert peer_params(peer, {}).model_dump()
        assert is_of_peer(f"{peer}.steps=2") and not is_of_peer("temporal.steps=2")

    def test_what_is_wrong_is_named(self, tmp_path):
        with pytest.raises(ParamsError, match=r"smm\.wings"):
            peer_params("smm", {}, ("smm.wings=2",))
        (tmp_path / "peers.yaml").write_text("smn: {}\n")
        with pytest.raises(ParamsError, match="section 'smn'; expected sections motion_director"):
            read_peers(tmp_path / "peers.yaml")
        with pytest.raises(ParamsError, match="cannot be read"):
            read_peers(tmp_path / "absent.yaml")
