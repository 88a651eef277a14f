"""The code of a step on its way into kernels: it is optimised and assembled there, once, with all that is inlined.

Numba would do both for each step as well, and for all steps inside it: a third of the time of a first call. And what
was optimised part by part is slower where rows are short.
"""

from typing import Any

from numba import _dynfunc
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class _StepLibrary(CPUCodeLibrary):  # type: ignore[misc]
    """LLVM's code of a step and of the steps that it calls, neither optimised nor assembled."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _StepLowering(NativeLowering):  # type: ignore[misc]
    """From a typed step to LLVM's language, and no further."""

    _name = "step_lowering"

    def run_pass(self, state: Any) -> bool:
        """Fill `state.cr`."""
        state.flags.no_compile = True
        state.library = _StepLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        super().run_pass(state)
        lowered = state.cr
        # A function that Python cannot call (it lies at address 0): other code finds this one by it.
        module, name = lowered.fndesc.lookup_module(), lowered.fndesc.qualname
        function = _dynfunc.make_function(module, name, "", 0, lowered.env, (state.library,))
        state.targetctx.insert_user_function(function, lowered.fndesc, [state.library])
        state.cr = lowered._replace(cfunc=function)
        return True


class StepCompiler(Compiler):  # type: ignore[misc]
    """Compiles a step as Numba would, but for its last stages."""

    def define_pipelines(self) -> list[Any]:
        """Numba's, with a lowering of our own."""
        (manager,) = super().define_pipelines()
        lowering = _StepLowering, "lowering of a step"
        manager.passes = [lowering if each[0] is NativeLowering else each for each in manager.passes]
        manager.finalize()
        return [manager]
