// vtk_kernels._cpu: one submodule an operator.
#include <nanobind/nanobind.h>

#include "parallel.h"

namespace nb = nanobind;

#ifdef VTK_OPERATOR_masking
void register_masking(nb::module_ &module);
#endif
#ifdef VTK_OPERATOR_frequency
void register_frequency(nb::module_ &module);
#endif
#ifdef VTK_OPERATOR_deformable
void register_deformable(nb::module_ &module);
#endif

NB_MODULE(_cpu, module) {
    vtk::watch_forks();
    module.doc() = "Compiled CPU kernels.";
    module.attr("compiler") = VTK_COMPILER;
    module.def("instruction_set", &vtk::instruction_set, "The instruction set that the processor's kernels use.");
    module.def("forked", &vtk::forked, "Whether this process was forked after the module was loaded: kernels then use one thread.");
#ifdef VTK_OPERATOR_masking
    nb::module_ masking = module.def_submodule("masking");
    register_masking(masking);
#endif
#ifdef VTK_OPERATOR_frequency
    nb::module_ frequency = module.def_submodule("frequency");
    register_frequency(frequency);
#endif
#ifdef VTK_OPERATOR_deformable
    nb::module_ deformable = module.def_submodule("deformable");
    register_deformable(deformable);
#endif
}
