/* The axes of position ids and their sections (M-RoPE).
 *
 * Source: transformers 5.24, modeling_rope_utils.py and compute_default_rope_parameters() of the
 * modeling files. */
#include <math.h>
#include <string.h>

#include "model_reader.h"

static void read_section_numbers(rwi_model_reader *reader, const json_t *sections) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    bool valid = json_array_size(sections) == 3;
    for (size_t axis = 0; axis < 3 && valid; axis++) {
        double section = json_number_value(json_array_get(sections, axis));
        valid = json_is_number(json_array_get(sections, axis)) && section >= 0 &&
                section <= RWI_MAX_HEAD_DIM && section == floor(section);
        if (valid)
            spec->sections[axis] = (int64_t)section;
    }
    if (!valid)
        rwi_json_fail(&reader->json, "mrope_section is not three numbers of frequencies");
}

/* The number of `count` frequencies that belong to axis h (1) or w (2), whose section is `section`.
 */
static int64_t interleaved_section(int64_t count, int64_t axis, int64_t section) {
    int64_t there = (count - axis + 2) / 3;
    return section < there ? section : there;
}

/* t has the remaining frequencies. */
static void fit_interleaved(rw_rope_spec *spec) {
    int64_t count = spec->rotary_dim / 2;
    for (int64_t axis = 1; axis < 3; axis++)
        spec->sections[axis] = interleaved_section(count, axis, spec->sections[axis]);
    spec->sections[0] = count - spec->sections[1] - spec->sections[2];
}

void rwi_model_read_axes(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    const rwi_model_type *model = reader->model;
    rwi_json_reader *json = &reader->json;
    const json_t *sections = rwi_json_array(json, rwi_model_scaling(reader, "mrope_section"));
    if (rwi_model_is(reader, "hunyuan_vl_text") &&
        (sections || rwi_json_value(rwi_model_scaling(reader, "xdrope_section"))))
        rwi_json_fail(json,
                      "mrope_section: model_type hunyuan_vl_text rotates the two columns of a "
                      "pair by ids of two axes, which is not supported");
    bool interleaved =
        rwi_json_bool(json, rwi_model_scaling(reader, "mrope_interleaved"),
                      rwi_json_bool(json, rwi_model_scaling(reader, "interleaved"), false));
    bool has_sections =
        model->axes == RW_ROPE_AXES_MROPE_CHUNKED || model->axes == RW_ROPE_AXES_MROPE_INTERLEAVED;
    spec->axes = model->axes;
    if (reader->known && !has_sections)
        return; /* the class ignores sections */
    if (sections)
        read_section_numbers(reader, sections);
    else
        memcpy(spec->sections, model->sections, sizeof spec->sections);
    if (!reader->known && sections)
        spec->axes = interleaved ? RW_ROPE_AXES_MROPE_INTERLEAVED : RW_ROPE_AXES_MROPE_CHUNKED;
    const int64_t *s = spec->sections;
    bool fits = s[0] + s[1] + s[2] == spec->rotary_dim / 2;
    if (reader->known && spec->axes == RW_ROPE_AXES_MROPE_INTERLEAVED)
        fit_interleaved(spec);
    else if (!sections && !fits)
        spec->axes = RW_ROPE_AXES_ONE; /* the sections do not fit: only text can be rotated */
}
