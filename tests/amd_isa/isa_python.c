/* The Python interpreter that looks up the forms of instructions and prepares launches:
 * isa_launch.py, in the folder ISA_PYTHON. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "isa_machine.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static PyObject *launcher; /* isa_launch.launch */

static void take_error(char *message, size_t bytes) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    snprintf(message, bytes, "%s", text ? PyUnicode_AsUTF8(text) : "an error of Python");
    PyErr_Clear();
    if (getenv("ROPEWALK_ISA_TRACE")) {
        PyErr_Restore(type, value, trace);
        PyErr_Print();
    } else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
    }
    Py_XDECREF(text);
}

static bool start(char *message, size_t bytes) {
    Dl_info self, python;
    if (!dladdr((void *)start, &self) || !dladdr((void *)Py_InitializeFromConfig, &python)) {
        snprintf(message, bytes, "the paths of libamdhip64's stand-in and of Python are not known");
        return false;
    }
    /* Python's extension modules resolve its symbols in the global namespace. */
    dlopen(python.dli_fname, RTLD_NOW | RTLD_GLOBAL);
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    const PyStatus status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        snprintf(message, bytes, "Python does not start: %s", status.err_msg);
        return false;
    }
    PyObject *path = PySys_GetObject("path"), *folder = PyUnicode_FromString(ISA_PYTHON);
    PyList_Insert(path, 0, folder);
    Py_DECREF(folder);
    PyObject *module = PyImport_ImportModule("isa_launch");
    PyObject *made = module ? PyObject_CallMethod(module, "start", "s", self.dli_fname) : NULL;
    if (made)
        launcher = PyObject_GetAttrString(module, "launch");
    if (!launcher)
        take_error(message, bytes);
    Py_XDECREF(made);
    Py_XDECREF(module);
    PyEval_SaveThread();
    return launcher != NULL;
}

bool isa_python_launch(const isa_call *c, char *message, size_t message_bytes) {
    static bool tried;
    if (!tried) {
        tried = true;
        if (!start(message, message_bytes))
            return false;
    }
    if (!launcher) {
        snprintf(message, message_bytes, "the emulator did not start");
        return false;
    }
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = PyObject_CallFunction(
        launcher, "Ks(III)(III)Kn", (unsigned long long)(uintptr_t)c->binary, c->kernel, c->grid[0],
        c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2],
        (unsigned long long)(uintptr_t)c->arguments, (Py_ssize_t)c->shared_bytes);
    if (!result)
        take_error(message, message_bytes);
    Py_XDECREF(result);
    PyGILState_Release(state);
    return result != NULL;
}
