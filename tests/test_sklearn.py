"""The estimators are what scikit-learn asks estimators to be, and rest on the rest of the package."""

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import probcl as pcl
from probcl.sklearn import BimodalClassifier, BimodalTransformer

X, Y = load_iris(return_X_y=True)
FLOWERS = np.array(["setosa", "versicolor", "virginica"])[Y]
pytestmark = pytest.mark.usefixtures("one_thread")


# No check is expected to fail. Some give arguments of wrong types, which only `fit` is to refuse.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@parametrize_with_checks([BimodalClassifier(hidden=(16,), epochs=20), BimodalTransformer(hidden=(16,), epochs=2)])
def test_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("estimator", [BimodalClassifier(), BimodalTransformer()], ids=repr)
def test_passes_the_checks_of_scikit_learn_as_it_comes(estimator):
    check_estimator(estimator)


def quick(**parameters) -> BimodalClassifier:
    return BimodalClassifier(**{"embedding_dim": 3, "epochs": 15, "random_state": 0} | parameters)


@pytest.fixture(scope="module")
def fitted() -> BimodalClassifier:
    return quick().fit(StandardScaler().fit_transform(X), FLOWERS)


def test_probabilities_are_those_of_zero_shot_with_the_frequencies_of_the_classes():
    rows = np.flatnonzero((Y < 2) | (np.arange(150) > 130))
    estimator = quick().fit(X[rows], FLOWERS[rows])
    counts = torch.tensor([50.0, 50.0, 19.0], dtype=torch.float64)
    expected = pcl.classification.zero_shot(estimator.model_, torch.arange(3), counts)(torch.tensor(X))
    np.testing.assert_allclose(estimator.predict_proba(X), expected.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(estimator.predict(X), estimator.classes_[expected.argmax(1).numpy()])


def test_a_fit_is_that_of_probcl_fit(fitted):
    x = torch.tensor(StandardScaler().fit_transform(X))
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    torch.manual_seed(seed)
    model = pcl.BimodalModel(pcl.encoders.MLP(4, 3, (64,)), pcl.encoders.Label(3, 3)).double()
    options = {"epochs": 15, "batch_size": fitted.batch_size, "lr": 1e-2, "seed": seed, "progress": False}
    history = pcl.fit(model, (x, torch.tensor(Y)), **options)
    np.testing.assert_array_equal(history.loss, fitted.history_.loss)
    np.testing.assert_array_equal(model.embed_u(x).numpy(), fitted.transform(x.numpy()))


def test_is_as_good_as_scikit_learn_says_of_iris_in_a_pipeline():
    assert cross_val_score(make_pipeline(StandardScaler(), quick(epochs=40)), X, FLOWERS, cv=3).mean() >= 0.94


def test_works_in_a_grid_search_of_a_pipeline():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), quick()),
        {
            "bimodalclassifier__alignment": [None, pcl.L2()],
            "bimodalclassifier__loss": [pcl.ConditionalLoss(), pcl.SigmoidLoss()],
        },
        cv=2,
    ).fit(X, FLOWERS)
    assert len(search.cv_results_["params"]) == 4
    assert search.score(X, FLOWERS) > 0.9


def test_fitting_leaves_an_alignment_and_a_loss_with_parameters_as_they_were():
    alignment, loss = pcl.SumMixture(learnable=True), pcl.SigmoidLoss()
    before = [parameter.clone() for part in (alignment, loss) for parameter in part.parameters()]
    estimator = quick(alignment=alignment, loss=loss).fit(X, FLOWERS)
    after = [parameter for part in (alignment, loss) for parameter in part.parameters()]
    assert len(before) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert clone(estimator).alignment is not alignment


def test_survives_joblib(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "estimator")
    again = joblib.load(tmp_path / "estimator")
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_its_model_survives_as_files(fitted, tmp_path):
    fitted.model_.save(tmp_path)
    model = pcl.BimodalModel.load(tmp_path)
    assert torch.equal(model.embed_u(torch.tensor(X)), torch.tensor(fitted.transform(X)))


def test_embeddings_are_a_named_table_in_pandas():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    table = quick().set_output(transform="pandas").fit_transform(frame, FLOWERS)
    assert list(table.columns) == [f"bimodalclassifier{k}" for k in range(3)]
    assert table.index.equals(frame.index)


def test_the_caller_s_randomness_is_left_alone():
    before = torch.get_rng_state()
    quick().fit(X, FLOWERS)
    assert torch.equal(torch.get_rng_state(), before)


def test_further_options_reach_the_fit():
    options = {"validation": 0.2, "patience": 2, "lr": 10.0}
    history = quick(epochs=200, fit_options=options).fit(X, FLOWERS).history_
    assert history.stopped_early
    assert history.step_lr[0] == 10.0


def two_tables(n: int = 250):
    """Two tables that share two normal variables."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(n, 2))
    return (common @ rng.normal(size=(2, width)) + 0.5 * rng.normal(size=(n, width)) for width in (5, 4))


def test_linear_embeddings_of_two_tables_span_what_cca_finds():
    x, y = two_tables()
    transformer = BimodalTransformer(2, (), epochs=80, lr=3e-2, random_state=0).fit(x, y)
    ours, theirs = transformer.transform(x), CCA(2).fit(x, y).transform(x)
    fit_of_theirs = np.linalg.lstsq(ours - ours.mean(0), theirs - theirs.mean(0), rcond=None)[0]
    residual = theirs - theirs.mean(0) - (ours - ours.mean(0)) @ fit_of_theirs
    assert residual.var() < 0.02 * theirs.var()


def test_the_score_of_two_tables_is_a_lower_bound_of_their_information():
    x, y = two_tables()
    transformer = BimodalTransformer(2, epochs=80, random_state=0).fit(x, y)
    covariance = np.cov(np.hstack([x, y]).T)
    information = -0.5 * np.log(
        np.linalg.det(covariance) / np.linalg.det(covariance[:5, :5]) / np.linalg.det(covariance[5:, 5:])
    )
    score = transformer.score(x, y)
    with torch.no_grad():
        expected = -pcl.ConditionalLoss()(transformer.model_.scores(torch.tensor(x), torch.tensor(y)))
    assert score == float(expected)
    assert 0.5 * information < score < information
    assert transformer.score(x, y[np.random.default_rng(1).permutation(len(y))]) < 0


def test_two_tables_are_embedded_side_by_side_and_searched_over():
    x, y = two_tables(200)
    pipeline = make_pipeline(PCA(4), BimodalTransformer(epochs=10, random_state=0))
    search = GridSearchCV(pipeline, {"bimodaltransformer__embedding_dim": [1, 3]}, cv=2).fit(x, y)
    transformer = search.best_estimator_[-1]
    z_x, z_y = transformer.transform(search.best_estimator_[:-1].transform(x), y)
    assert z_x.shape == z_y.shape == (200, search.best_params_["bimodaltransformer__embedding_dim"])
    assert transformer.get_feature_names_out()[0] == "bimodaltransformer0"
    with pytest.raises(ValueError, match="y must have the 4 columns it was fitted to, got 3"):
        transformer.transform(x[:, :4], y[:, :3])
