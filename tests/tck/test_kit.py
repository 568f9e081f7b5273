"""Fetching and choosing: what is checked before the kit runs."""

import hashlib

import pytest

from tests.tck import kit


def test_the_list_of_digests_names_the_kit_and_the_jar_that_maven_would_forget():
    names = set(kit.digests(kit.DIGESTS.read_text()))
    assert {"dsp-system-1.0.0-RC6.jar", "junit-platform-console-6.0.2.jar", "okhttp-jvm-5.3.0.jar"} <= names


def test_jars_that_are_exactly_those_of_the_list_differ_in_nothing(tmp_path):
    (tmp_path / "a.jar").write_bytes(b"a")
    assert kit.differences(tmp_path, {"a.jar": hashlib.sha256(b"a").hexdigest()}) == []


def test_a_missing_a_foreign_and_a_changed_jar_are_each_named(tmp_path):
    (tmp_path / "changed.jar").write_bytes(b"x")
    (tmp_path / "foreign.jar").write_bytes(b"y")
    wanted = {"changed.jar": hashlib.sha256(b"a").hexdigest(), "gone.jar": hashlib.sha256(b"b").hexdigest()}
    assert kit.differences(tmp_path, wanted) == ["changed.jar: another digest", "foreign.jar: not expected", "gone.jar: missing"]


def test_a_directory_that_does_not_exist_lacks_everything(tmp_path):
    assert kit.differences(tmp_path / "none", {"a.jar": "00"}) == ["a.jar: missing"]


def test_jars_that_were_tampered_with_are_fetched_again_and_never_run(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "DIGESTS", tmp_path / "digests")
    (tmp_path / "digests").write_text(f"{hashlib.sha256(b'a').hexdigest()}  a.jar\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    maven = tmp_path / "mvn"
    maven.write_text(f"#!/bin/sh\n/bin/mkdir -p {tmp_path}/lib\n/usr/bin/printf tampered > {tmp_path}/lib/a.jar\n")
    maven.chmod(0o755)
    with pytest.raises(kit.KitError, match=r"a\.jar: another digest"):
        kit.fetch(tmp_path / "lib")


def test_a_test_of_the_kit_is_chosen_by_its_displayed_name():
    assert kit.method("CN_C:01-02") == "cn_c_01_02"
    with pytest.raises(kit.KitError, match="`CN-01-02` is no test of the kit"):
        kit.method("CN-01-02")


def test_without_java_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kit.missing() == "`java` and `mvn` not found: install a Java runtime >= 17 and Maven"


def test_java_that_is_too_old_is_a_reason(tmp_path, monkeypatch):
    for name, said in (("java", 'openjdk version "11.0.2"'), ("mvn", "")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kit.missing() == "Java 11 is too old: the kit needs >= 17"
