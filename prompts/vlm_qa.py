"""Answer to `vlm_qa.md`: 30 questions about a generated video in three categories (InteractAvatar §4.2).

The paper's own questions are not published; these are the project's.
"""

from typing import Final, Literal

from prompts.prompt import Answer, Prompt

Said = Literal[0, 1] | None


class VlmQa(Answer):
    """1 (yes), 0 (no), or null where it cannot be judged; yes is always the better answer."""

    object_all_there: Said
    object_as_reference: Said
    object_shape_kept: Said
    object_number_kept: Said
    object_size_plausible: Said
    object_outline_clear: Said
    object_details_kept: Said
    object_moves_when_handled: Said
    object_moves_by_cause: Said
    object_rests: Said
    human_as_reference: Said
    human_clothes_kept: Said
    human_face_natural: Said
    human_mouth_natural: Said
    human_hands_whole: Said
    human_limbs_whole: Said
    human_alone: Said
    human_motion_smooth: Said
    human_posture_possible: Said
    human_scene_kept: Said
    interaction_happens: Said
    interaction_right_object: Said
    interaction_right_part: Said
    interaction_in_order: Said
    interaction_complete: Said
    interaction_touches: Said
    interaction_no_overlap: Said
    interaction_grip_fits: Said
    interaction_moves_together: Said
    interaction_has_effect: Said


# A question's name begins with its category's.
CATEGORIES: Final = ("object", "human", "interaction")

VLM_QA = Prompt("vlm_qa", VlmQa)
