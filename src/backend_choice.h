/* Which backend a context runs on, and where its module is found. */
#ifndef RWI_BACKEND_CHOICE_H
#define RWI_BACKEND_CHOICE_H

#include "backend.h"
#include "environment.h"

/* Opens the device that options, then the environment, then auto choose. `note` receives the line
 * for the log: what was chosen and, where auto passed over a backend, why. */
rw_status rwi_backend_choose(const rw_context_options *options, const rwi_environment *environment,
                             rwi_device **device, rw_message *note, rw_message *message);

#endif
