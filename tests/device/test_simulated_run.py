"""All other tests of this folder, and one of each kind elsewhere, on the simulated device, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
# On a card, `make gpu` runs all of these folders; here, one of every kind of quantity and a method of every kind;
# tests/device compares the scores of all methods with those of the processor.
ELSEWHERE = [
    "engine/test_blocks.py::test_functions_equal_those_of_the_dense_blocks[0.0-more rows than parameters]",
    "engine/test_covering.py::test_k_center_is_the_plain_greedy_loop_whatever_the_pool[1-1]",
    "engine/test_covering.py::test_herding_is_the_plain_loop[0]",
    "engine/test_covering.py::test_message_passing_is_the_dense_loop[0-1]",
    "engine/test_curvature.py::test_dense_curvature_is_the_gauss_newton_matrix_plus_the_penalty[mlp, softmax-False]",
    "engine/test_curvature.py::test_systems_that_end_at_different_rounds_are_solved_side_by_side",
    "engine/test_differences.py::test_batches_are_halved_when_memory_runs_out[backward]",
    "engine/test_differences.py::test_products_agree_with_second_derivatives[linear]",
    "engine/test_differential.py::test_values_of_one_query_direction[linear-True]",
    "engine/test_ekfac.py::test_factors_and_eigenvalues_equal_those_of_per_row_gradients[conv2d-True]",
    "engine/test_ekfac.py::test_apply_equals_functions_of_the_dense_reference[tokens-False]",
    "engine/test_ekfac.py::test_pickle_keeps_the_numbers_and_leaves_the_model_out",
    "engine/test_kernel.py::test_exact_leave_one_out_equals_removing_each_row[0.0]",
    "engine/test_kernel.py::test_nystrom_equals_the_dense_kernel_with_a_share_of_the_unexplained_as_noise[1]",
    "engine/test_kronecker_blocks.py::test_the_curvature_of_one_row_is_exact_where_a_row_has_one_position",
    "engine/test_kronecker_blocks.py::test_every_parameter_is_covered_and_the_values_are_those_of_gradients_by_row"
    "[tied table]",
    "engine/test_last_layer.py::test_factors_are_the_gradients_of_autograd[False-plain]",
    "engine/test_layers.py::test_every_property[linear]",
    "engine/test_matching.py::test_pursuit_is_non_negative_least_squares_on_materialised_gradients[1-0]",
    "engine/test_pairwise.py::test_exact_values_are_products_with_the_formed_matrix[mlp]",
    "engine/test_pairwise.py::test_low_rank_keeps_its_tolerance_over_all_queries_and_rows[0.1-None]",
    "engine/test_pairwise.py::test_truncated_directions_of_few_queries[sgd-1e-06-1]",
    "engine/test_per_row.py::test_losses_and_gradients_are_those_of_the_criterion[categorical]",
    "engine/test_per_row.py::test_hessian_product_equals_the_dense_hessian_with_penalty[categorical, class weights]",
    "engine/test_per_row.py::test_gauss_newton_product_equals_the_dense_matrix_with_penalty[gaussian, several]",
    "engine/test_projection.py::test_rows_equal_formed_gradients_times_the_matrix[mlp-1-5]",
    "engine/test_replay.py::test_every_step_is_the_recorded_one[plain]",
    "engine/test_root_features.py::test_dots_of_features_are_products_with_the_gauss_newton_matrix[linear]",
    "engine/test_second_order.py::test_every_property[linear]",
    "engine/test_softmax_head.py::test_closed_form_equals_the_dense_hessians[linear-True]",
    "engine/test_unrolling.py::test_flows_equal_functions_of_formed_matrices[lead0-ekfac]",
    "model/test_linear.py::test_the_gradient_of_the_risk_is_zero_at_the_fitted_parameters[logistic-False]",
    "attribution/test_complexity_gap.py::test_scores_equal_the_definition_and_loo_labels_equal_brute_force_removal",
    "attribution/test_dynamics.py::test_grand_of_a_linear_layer_is_error_times_features",
    "attribution/test_gradient.py::test_scores_and_the_best_are_those_of_the_matrix[tracin-logistic]",
    "attribution/test_influence.py::test_the_closed_form[ridge-]",
    "attribution/test_inner_product.py::test_it_is_influence_under_a_huge_damping",
    "attribution/test_knn_shapley.py::test_values_equal_the_papers_recursion[1-1]",
    "attribution/test_moso.py::test_scores_equal_those_of_the_second_implementation[softmax]",
    "attribution/test_tracin.py::test_the_sum_over_checkpoints_by_hand",
    "attribution/test_trak.py::test_values_are_those_of_the_published_formula[two-None]",
]


def test_on_the_simulated_device():
    chosen = [str(TESTS / "device"), *(str(TESTS / each) for each in ELSEWHERE)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *chosen]
    # the options of the run that this one is part of are not those of this one
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    found = subprocess.run(
        command, cwd=TESTS.parent, env=inherited | {"SKTDA_DEVICE": "simulated"}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout[-6_000:] + found.stderr[-2_000:]
