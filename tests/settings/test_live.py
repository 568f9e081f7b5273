"""What a reload takes over, what it says of the rest, and that it forgets nothing of it."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector.settings.fields import (
    ApprovalSettings,
    EdrSettings,
    EgressSettings,
    LimitsSettings,
    ListenerSettings,
    ParticipantSettings,
    Settings,
    StoreSettings,
    fields_of,
)
from connector.settings.live import LIVE, changed, taken
from connector.values import replace

BASE = Settings(participant=ParticipantSettings(id="did:web:a.example", name="a", role="hospital"))
SECTIONS: dict[str, st.SearchStrategy[Any]] = {
    "approval": st.builds(ApprovalSettings, delay_seconds=st.sampled_from([0.0, 1.0, 2.0])),
    "edr": st.builds(EdrSettings, token_seconds=st.sampled_from([1.0, 2.0]), quiet_seconds=st.sampled_from([1.0, 2.0])),
    "egress": st.builds(EgressSettings, http=st.booleans(), ca_file=st.sampled_from([None, Path("ca.pem")])),
    "limits": st.builds(LimitsSettings, catalog_page=st.sampled_from([1, 2]), connections=st.sampled_from([1, 2])),
    "data": st.builds(ListenerSettings, port=st.sampled_from([1, 2])),
    "store": st.builds(StoreSettings, path=st.sampled_from([Path("a.db"), Path("b.db")])),
    "credentials": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([Path("1"), Path("2")])),
}
SETTINGS = st.fixed_dictionaries({}, optional=SECTIONS).map(lambda sections: replace(BASE, **sections))


@given(SETTINGS)
def test_the_same_settings_change_nothing(settings: Settings):
    assert taken(settings, settings) == (settings, ())


@given(SETTINGS, SETTINGS)
def test_each_field_that_differs_is_either_applied_or_waits_and_none_is_silent(old: Settings, new: Settings):
    now, said = taken(old, new)
    assert {line.partition(":")[0] for line in said} == set(changed(old, new))
    waits = {line.partition(":")[0] for line in said if line.endswith("restart to apply it")}
    assert set(changed(now, new)) == waits
    assert not any(name in LIVE or name.partition(".")[0] in LIVE for name in waits)


@given(SETTINGS, SETTINGS)
def test_what_waits_is_said_again_at_the_next_reload(old: Settings, new: Settings):
    now, said = taken(old, new)
    assert taken(now, new)[1] == tuple(line for line in said if line.endswith("restart to apply it"))


@given(SETTINGS, SETTINGS)
def test_settings_that_come_back_are_in_force_again(old: Settings, new: Settings):
    there, _ = taken(old, new)
    assert taken(there, old)[0] == old


def test_every_name_that_is_live_is_a_field():
    sections = {section.name: getattr(BASE, section.name) for section in fields_of(Settings)}
    for name in LIVE:
        section, _, field = name.partition(".")
        assert section in sections
        assert not field or hasattr(sections[section], field), name


def test_a_credential_that_is_gone_is_gone():
    now, said = taken(replace(BASE, credentials={"upstream": Path("secret")}), BASE)
    assert now.credentials == {}
    assert said == ("credentials.upstream: applied",)
