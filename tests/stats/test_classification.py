from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from emor3.errors import UserError
from emor3.method.labels import EKMAN6, MIKELS8, LabelSet
from emor3.method.reflection import ScriptedJudge, reflect
from emor3.method.rewards import RewardSettings, predicted_label, score
from emor3.method.thinking import parse
from emor3.method.types import Aspect, Finding, Prediction, Reflection, Sample, Verdict
from emor3.stats import classification, measures, uncertainty
from emor3.stats.figures import checks


def predict(label, answer, labels=EKMAN6, id=None, group=None, reflection=None):
    """A prediction whose completion is nothing but the answer's box; None is no box."""
    text = "no idea" if answer is None else rf"\boxed{{{answer}}}"
    predict.count += 1
    sample = Sample(id or f"s{predict.count}", ("x.png",), label, labels, group=group)
    thought = parse(text)
    return Prediction(sample, text, thought, predicted_label(thought, labels), reflection or Reflection())


predict.count = 0


def random_predictions(n=200, labels=EKMAN6, seed=0, groups=None):
    generator = np.random.default_rng(seed)
    names = [*labels.labels, None]
    return [
        predict(labels.labels[generator.integers(len(labels.labels))], names[generator.integers(len(names))], labels)
        for _ in range(n)
    ]


def test_accuracy_counts_an_unparsed_completion_as_wrong():
    # 2 right of 4: one wrong label, one without an answer
    outcomes = [predict("joy", "joy"), predict("fear", "Fear."), predict("joy", "fear"), predict("anger", None)]
    result = classification.classify(outcomes)
    assert result.accuracy.value == 0.5
    assert result.accuracy.n == 4
    assert result.unparsed.value == 0.25


def test_unparsed_is_no_class_even_where_a_label_is_called_none():
    labels = LabelSet("odd", ("none", "joy"))
    result = classification.classify([predict("none", None, labels), predict("joy", "joy", labels)])
    assert result.accuracy.value == 0.5
    assert result.confusion == ((0, 0, 1), (0, 1, 0))


def test_the_share_of_independent_items_has_the_wilson_interval():
    hits = [True] * 7 + [False] * 3
    estimate = uncertainty.proportion(hits, range(10))
    low, high = proportion_confint(7, 10, method="wilson")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, low, high))


def test_near_copies_widen_the_interval():
    # 40 groups of 10 copies that agree with each other carry the information of 40 items, not of 400
    hits = [group % 2 == 0 for group in range(40) for _ in range(10)]
    groups = [group for group in range(40) for _ in range(10)]
    clustered, independent = uncertainty.proportion(hits, groups), uncertainty.proportion(hits, range(400))
    # standard errors: sqrt(.25 / 40) = 0.079 and sqrt(.25 / 400) = 0.025
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * 0.079, rel=0.15)
    assert independent.high - independent.low == pytest.approx(2 * 1.96 * 0.025, rel=0.05)


def test_equal_outcomes_of_near_copies_leave_the_doubt_of_their_groups():
    # Resampling 4 groups that are all right would say [1, 1]; Wilson on 4 groups says [0.51, 1].
    estimate = uncertainty.proportion([True] * 8, [place // 2 for place in range(8)])
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(4, 4, method="wilson"))
    assert uncertainty.proportion([False] * 8, [place // 2 for place in range(8)]).high > 0.4


def test_completions_on_one_image_are_one_cluster():
    sampled = [predict("joy", answer, id=f"image{i}") for i in range(5) for answer in ("joy", "fear")]
    assert len(set(classification.clusters(sampled))) == 5


def test_a_group_and_a_sample_of_the_same_name_are_two_clusters():
    assert (
        len(set(classification.clusters([predict("joy", "joy", id="a"), predict("joy", "joy", id="b", group="a")])))
        == 2
    )


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_and_balanced_accuracy_equal_those_of_scikit_learn(seed):
    predictions = random_predictions(seed=seed)
    truth = [p.sample.label for p in predictions]
    predicted = [p.predicted or "unparsed" for p in predictions]
    result = classification.classify(predictions)
    f1 = f1_score(truth, predicted, labels=list(EKMAN6.labels), average="macro")
    recalls = [
        np.mean([p == label for p, t in zip(predicted, truth, strict=True) if t == label]) for label in set(truth)
    ]
    assert result.macro_f1.value == pytest.approx(f1)
    assert result.balanced_accuracy.value == pytest.approx(np.mean(recalls))
    assert result.macro_f1.low < f1 < result.macro_f1.high


def test_balanced_accuracy_without_unparsed_equals_that_of_scikit_learn():
    predictions = [p for p in random_predictions() if p.predicted]
    truth = [p.sample.label for p in predictions]
    expected = balanced_accuracy_score(truth, [p.predicted for p in predictions])
    assert classification.classify(predictions).balanced_accuracy.value == pytest.approx(expected)


def test_a_class_that_never_occurs_does_not_lower_the_macro_average():
    # joy: F1 1; fear: F1 1; the other four labels of Ekman-6 do not occur
    assert classification.classify([predict("joy", "joy"), predict("fear", "fear")]).macro_f1.value == 1


def test_lenient_accuracy_takes_synonyms_and_stands_beside_the_strict_one():
    # strict: 1 of 3; lenient: "happy" is joy, "not fear" stays wrong
    result = classification.classify([predict("joy", "joy"), predict("joy", "happy"), predict("fear", "not fear")])
    assert result.accuracy.value == pytest.approx(1 / 3)
    assert result.lenient_accuracy.value == pytest.approx(2 / 3)


def test_polarity_accuracy_skips_labels_without_a_fixed_sign():
    # surprise is skipped; sadness for fear is right in sign; unparsed and surprise for joy are not: 1 of 3
    outcomes = [("surprise", "joy"), ("fear", "sadness"), ("joy", None), ("joy", "surprise")]
    polarity = classification.classify([predict(*outcome) for outcome in outcomes]).polarity_accuracy
    assert (polarity.value, polarity.n) == (pytest.approx(1 / 3), 3)


def test_polarity_accuracy_is_absent_where_no_label_has_a_sign():
    labels = LabelSet("plain", ("a", "b"))
    assert classification.classify([predict("a", "a", labels)]).polarity_accuracy is None


def reasoned(label, answer, feeling="joy", conclusion="Positive, high arousal.", judge="Yes", reads="joy"):
    """A prediction in three steps, with what the judge said of it."""
    text = f"<step1>A dog.</step1><step2>{feeling}</step2><step3>{conclusion}</step3>\\boxed{{{answer}}}"
    sample, thought = Sample("s", ("x.png",), label, EKMAN6), parse(text)
    judged = ScriptedJudge(lambda question: judge if question.aspect is Aspect.CONSISTENCY else reads)
    return Prediction(
        sample,
        text,
        thought,
        predicted_label(thought, EKMAN6),
        reflect(judged, [(sample, thought)], frozenset(Aspect))[0],
    )


def rate(predictions, figure):
    return measures.rate(predictions, checks()[figure])


def test_format_counts_completions_that_keep_the_grammar():
    assert rate([predict("joy", "joy"), predict("joy", None), reasoned("joy", "joy")], "format").value == 1 / 3


def test_support_counts_what_could_not_be_asked_as_0_and_leaves_out_what_never_ran():
    findings = [Finding(Verdict.SUPPORTED), Finding(Verdict.NOT_ASKED), Finding(Verdict.REFUTED), None]
    outcomes = [predict("joy", "joy", reflection=Reflection(consistency=finding)) for finding in findings]
    consistency = rate(outcomes, "consistency")
    assert (consistency.value, consistency.n) == (pytest.approx(1 / 3), 3)
    assert rate(outcomes, "coherence") is None


def test_what_the_judge_failed_on_counts_neither_for_nor_against():
    good = reasoned("joy", "joy")
    failed = replace(good, reflection=Reflection(*[Finding(Verdict.ERROR, reason="HTTP 500")] * 2))
    for figure in ("consistency", "coherence", "agreement"):
        found = rate([good, failed], figure)
        assert (found.value, found.n) == (1.0, 1)
        assert rate([failed], figure) is None


def test_agreement_is_with_the_models_own_answer_and_coherence_with_the_truth():
    # The judge reads joy: the first is right and agrees, the second agrees on a wrong answer, the third does neither.
    outcomes = [reasoned("joy", "joy"), reasoned("fear", "joy"), reasoned("fear", "fear")]
    assert rate(outcomes, "agreement").value == pytest.approx(2 / 3)
    assert rate(outcomes, "coherence").value == pytest.approx(1 / 3)


def test_step_3_is_read_against_the_label_and_skipped_where_the_label_has_no_sign():
    outcomes = [
        reasoned("joy", "joy"),  # positive, high: both hold
        reasoned("sadness", "joy"),  # negative, low: neither holds
        reasoned("surprise", "joy"),  # no fixed sign: skipped
        reasoned("fear", "joy", conclusion="Negative or positive, high."),  # claims both: no claim
    ]
    polarity, arousal = rate(outcomes, "step3_polarity"), rate(outcomes, "step3_arousal")
    assert (polarity.value, polarity.n) == (pytest.approx(1 / 3), 3)
    assert (arousal.value, arousal.n) == (pytest.approx(2 / 3), 3)


def test_the_paired_change_of_macro_f1_is_the_difference_of_both():
    before, after = random_predictions(seed=3), random_predictions(seed=4)
    after = [replace(b, predicted=a.predicted) for b, a in zip(before, after, strict=True)]
    scores, change = classification.compare_macro_f1(before, after)
    values = [classification.classify(p).macro_f1.value for p in (before, after)]
    assert list(scores) == values
    assert change.value == pytest.approx(values[1] - values[0])
    assert change.low < change.value < change.high


def test_mcnemar_equals_that_of_statsmodels():
    before = [True] * 30 + [False] * 12 + [True] * 3 + [False] * 5
    after = [True] * 30 + [True] * 12 + [False] * 3 + [False] * 5
    expected = statsmodels_mcnemar([[30, 3], [12, 5]], exact=True).pvalue
    assert uncertainty.mcnemar(before, after) == pytest.approx(expected)


def test_holm_equals_that_of_statsmodels():
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5, "e": 0.04, "f": 0.9}
    expected = multipletests(list(p_values.values()), method="holm")[1]
    assert list(uncertainty.holm(p_values).values()) == pytest.approx(list(expected))


def test_mcnemar_of_equal_models_is_1():
    assert uncertainty.mcnemar([True, False], [True, False]) == 1


def test_a_comparison_reports_the_change_and_what_was_gained_and_lost():
    # 12 gained, 3 lost of 50: +9 / 50 = 0.18
    before = [True] * 30 + [False] * 12 + [True] * 3 + [False] * 5
    after = [True] * 30 + [True] * 12 + [False] * 3 + [False] * 5
    result = uncertainty.compare_hits(before, after, range(50))
    assert (result.difference.value, result.gained, result.lost) == (pytest.approx(0.18), 12, 3)
    assert result.difference.low < 0.18 < result.difference.high
    assert result.p_value == pytest.approx(binomtest(12, 15).pvalue)


def test_the_cluster_test_agrees_with_mcnemar_on_independent_items():
    change = np.array([1.0] * 12 + [-1.0] * 3 + [0.0] * 35)
    assert uncertainty.sign_flip(change, seed=0) == pytest.approx(binomtest(12, 15).pvalue, abs=0.01)


def test_copies_of_one_image_do_not_make_a_gain_significant():
    # 3 images gained, each copied 20 times: McNemar on 60 items would say p < 1e-17; 3 clusters can say 2 / 2^3 at best
    before, after = [False] * 60, [True] * 60
    assert uncertainty.compare_hits(before, after, [i // 20 for i in range(60)]).p_value == pytest.approx(
        0.25, abs=0.02
    )


def test_a_comparison_needs_the_same_samples_in_the_same_order():
    one, other = predict("joy", "joy", id="one"), predict("joy", "joy", id="other")
    with pytest.raises(UserError, match="same samples"):
        classification.compare_accuracy([one, other], [other, one])


def test_intervals_are_the_same_in_every_run():
    predictions = random_predictions()
    assert classification.classify(predictions, seed=3) == classification.classify(predictions, seed=3)


def test_no_predictions_and_mixed_label_sets_are_refused():
    with pytest.raises(UserError, match="no predictions"):
        classification.classify([])
    with pytest.raises(UserError, match="different label sets"):
        classification.classify([predict("joy", "joy"), predict("awe", "awe", MIKELS8)])


def test_accuracy_in_evaluation_is_the_accuracy_part_of_the_reward():
    answers = ["joy", "Joy.", "**joy**", "happy", "joy, fear", "", None, r"\text{joy}"]
    outcomes = [predict("joy", answer) for answer in answers]
    settings = RewardSettings(reflective=0)
    rewards = [score(p.thought, p.sample, p.reflection, settings) for p in outcomes]
    assert [reward.parts["accuracy"] == 1 for reward in rewards] == [*map(classification.is_correct, outcomes)]
    assert classification.classify(outcomes).accuracy.value == 4 / 8
