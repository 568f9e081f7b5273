from connector.odrl_compare.verdict import Found, Verdict, unknown


def test_an_answer_is_explained_only_when_it_is_asked():
    asked = []

    def tell() -> tuple[str, None]:
        asked.append(1)
        return "because", None

    found = Found("no", tell)
    verdict = Verdict(
        "no", "yes", "no", "yes", {"refines": found, "refined_by": Found("yes"), "equivalent": found, "compatible": Found("yes")}
    )
    assert not asked
    assert verdict.reasons == {"refines": "because", "equivalent": "because"}
    assert verdict.witnesses == {}
    assert asked


def test_unknown_has_a_reason_and_no_witness():
    found = unknown("nobody can tell")
    assert (found.answer, found.reason, found.witness) == ("unknown", "nobody can tell", None)


def test_two_verdicts_are_equal_by_their_answers():
    assert Verdict("yes", "yes", "yes", "yes", {}) == Verdict("yes", "yes", "yes", "yes", {"refines": Found("yes")})
