/* Fibers: the host schedules; each fiber has its own stack, which the host enters and which returns
 * to it. */
#ifndef HIP_EMULATOR_FIBER_H
#define HIP_EMULATOR_FIBER_H

struct hip_emulator_fiber;

/* Creates a fiber that will run `main`, which must never return; NULL if out of memory. */
hip_emulator_fiber *hip_emulator_fiber_new(void (*main)(void));
void hip_emulator_fiber_delete(hip_emulator_fiber *fiber);

/* Discards the state of the fiber: it will start again. */
void hip_emulator_fiber_reset(hip_emulator_fiber *fiber);

/* Runs the fiber until it calls hip_emulator_fiber_leave(). */
void hip_emulator_fiber_enter(hip_emulator_fiber *fiber);

/* Returns from the running fiber to the host. */
void hip_emulator_fiber_leave(void);

#endif
