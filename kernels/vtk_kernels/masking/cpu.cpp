// The masking operators on the CPU: see reference.py for what they compute.
//
// All but the sums are copies of rows, so what counts is to touch every byte once and never to wait: samples (or lines of
// the image) are divided among the threads, and a row is copied with the widest moves the processor has.
#include "patches.h"
#include "sets.h"
#include "tokens.h"

void register_masking(nb::module_ &module) {
    module.def("random_keep", &random_keep);
    module.def("keep_tokens", &keep_tokens, nb::arg("x"), nb::arg("keep"), nb::arg("pos").none(), nb::arg("prefix").none(), nb::arg("out"), nb::arg("threads"));
    module.def("keep_tokens_backward", &keep_tokens_backward, nb::arg("grad"), nb::arg("keep"), nb::arg("grad_x").none(), nb::arg("grad_pos").none(), nb::arg("tokens"), nb::arg("threads"));
    module.def("keep_patches", &keep_patches);
    module.def("place_patches", &place_patches);
    module.def("mask_patches", &mask_patches);
    module.def("fill_gradient", &fill_gradient);
}
