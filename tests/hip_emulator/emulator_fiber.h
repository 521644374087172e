/* Fibers: a host, which schedules, and stacks of their own that it enters and that leave to it. */
#ifndef HIP_EMULATOR_FIBER_H
#define HIP_EMULATOR_FIBER_H

struct hip_emulator_fiber;

/* A fiber that will run `main`, which never returns; NULL where memory has run out. */
hip_emulator_fiber *hip_emulator_fiber_new(void (*main)(void));
void hip_emulator_fiber_delete(hip_emulator_fiber *fiber);

/* Forgets where the fiber is: it will start afresh. */
void hip_emulator_fiber_reset(hip_emulator_fiber *fiber);

/* Runs the fiber until it leaves. */
void hip_emulator_fiber_enter(hip_emulator_fiber *fiber);

/* Back to the host, from the fiber that runs. */
void hip_emulator_fiber_leave(void);

#endif
