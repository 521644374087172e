#!/usr/bin/env python3
"""Runs the suites on emulated AMD devices and prints a table; used by ci/test amd_isa.

  isa_suite.py [--jobs N] ARCH[/BUILD]...          all operations and suites on these architectures
  isa_suite.py ARCH[/BUILD] -- PROGRAM ARGUMENT... one program, as in the command of a failure
  isa_suite.py --check                             checks that there is an emulator
  isa_suite.py --get                               prints the command that fetches it
  isa_suite.py --programs                          prints the targets of build/emulated that it runs

BUILD is the build folder, under build/, of the AMD module [the first of young_amd and amd that
contains the architecture]. Programs are from build/emulated, the replacement of HIP's runtime from
build/amd_isa. Every operation and suite runs twice, with waves and blocks in either order.
ROPEWALK_TEST_TIER=quick|full|large [quick] selects the size of cases. Exit status 0: no failures;
77: there is no emulator; the command that fetches it is printed.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import isa_emulator
import isa_forms

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / 'build'
SKIPPED = 77
MOST_TOLD = 5  # failures of an operation
TIMEOUT = {'quick': 600, 'full': 3600, 'large': 7200}
SUITES = ['test_attention_accuracy', 'test_pattern', 'test_attention_pipeline', 'test_faults',
          'test_layers', 'test_golden', 'test_biases']
LONGEST = ['attention', 'softmax', 'rope_append', 'pattern_fill_bits', 'pattern_fill', 'rope']

# Expected results of self-tests: (name, architectures or None for all, the expected error with
# waves in order, in reverse order); None: it must pass. See isa_self_test.hip.
WRONG = 'a result is wrong'
ACCESS = r'at \+0x[0-9a-f]+ \w+\(.*: an access to '
SELF_TESTS = [
    ('sum', None, None, None),
    ('unaligned', None, None, None),
    ('tickets', None, None, None),
    ('wide_atomics', None, None, None),
    ('masked', None, None, None),
    ('wmma', ('gfx1100', 'gfx1201'), None, None),
    ('flat', None, None, None),
    ('divide', None, None, None),
    ('mfma_f16', ('gfx942',), None, None),
    ('upper_register', ('gfx942', 'gfx90a'), None, None),
    ('lost_barrier_next', None, WRONG, None),
    ('lost_barrier_previous', None, None, WRONG),
    ('lost_second_barrier_next', None, None, WRONG),
    ('lost_second_barrier_previous', None, WRONG, None),
    ('spin', None, *2 * [r'spin_kernel on .*, block \(0, 0, 0\) .*, lanes 0xf+e, .*: a hang']),
    ('store_past_end', None, *2 * [ACCESS + '.*0 bytes past the end of an allocation of 256']),
    ('store_before_start', None, *2 * ['it wrote to 4 bytes before an allocation of 256']),
    ('store_into_slack', None, *2 * ['it wrote to 0 bytes past the end of an allocation of 244']),
    ('load_past_end', None, *2 * [ACCESS + '.*0 bytes past the end of an allocation of 256']),
    ('load_after_free', None, *2 * [ACCESS + '.*memory that was freed']),
    ('host_pointer', None, *2 * [ACCESS + '.*no allocation of the device']),
    ('shared_overrun', None, *2 * ['it wrote to byte 256 of LDS, of which it has 256']),
    ('shared_overrun_far', None, *2 * [ACCESS + r'byte 4\d\d\d of LDS, of which it has 256']),
    ('unwritten', None, *2 * [WRONG]),
    ('copy_past_end', None, *2 * ['hipMemcpy to the device of 260 bytes']),
    # Gaps: these pass although a device may fail, or fail if the emulator no longer has a gap.
    ('missing_wait', None, None, None),
    ('missing_fence', None, None, None),
    ('load_into_slack', None, None, None),
    ('divide64_subnormal', None, None, None),
    ('mode', ('gfx1100', 'gfx1201'), None, None),
    ('mode', ('gfx942',), *2 * ['s_setreg_imm32_b32.*the emulator has no form of it']),
]


# ---- targets ----

@dataclasses.dataclass(frozen=True)
class Target:
    architecture: str
    module: pathlib.Path

    @property
    def name(self):
        return f'{self.architecture}/{self.module.name}'

    def environment(self, reverse=0, **more):
        libraries = [str(BUILD / 'amd_isa/lib'), os.environ.get('LD_LIBRARY_PATH', '')]
        return {**os.environ, 'ROPEWALK_BACKEND': 'hip', 'ROPEWALK_ISA_ARCH': self.architecture,
                'ROPEWALK_BACKEND_PATH': str(self.module / 'lib'),
                'ROPEWALK_ISA_REVERSE': str(reverse),
                'LD_LIBRARY_PATH': ':'.join(filter(None, libraries)), **more}


def find_target(text):
    """ARCH[/BUILD]"""
    architecture, _, build = text.partition('/')
    for folder in [build] if build else ['young_amd', 'amd']:
        command = BUILD / folder / 'hip/command'
        if command.is_file() and f'--offload-arch={architecture}' in command.read_text().split():
            return Target(architecture, BUILD / folder)
    sys.exit(f'amd_isa: no module for {text} is built, expected one of ci/test amd young_amd')


def program_path(name):
    folder = 'amd_isa' if name == 'isa_self_test' else 'emulated'
    return str(BUILD / folder / 'bin' / name)


# ---- jobs ----

@dataclasses.dataclass
class Result:
    cases: int = 0
    passed: int = 0
    instructions: int = 0
    seconds: float = 0.0
    failures: list = dataclasses.field(default_factory=list)

    def add(self, other):
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def run(target, name, arguments, reverse, tier, **more):
    """(exit status, stdout, stderr, instructions, seconds)"""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile('r') as counts:
        environment = target.environment(reverse, ROPEWALK_TEST_TIER=tier,
                                         ROPEWALK_ISA_STATS=counts.name, **more)
        try:
            done = subprocess.run([program_path(name), *arguments], env=environment, text=True,
                                  capture_output=True, timeout=TIMEOUT[tier], errors='replace')
            status, out, errors = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            status, out, errors = -1, '', f'{name} did not end within {TIMEOUT[tier]} s'
        instructions = sum(int(line.split()[1]) for line in counts)
    return status, out, errors, instructions, time.monotonic() - began


def run_operation(target, operation, reverse, tier):
    status, out, errors, instructions, seconds = run(
        target, 'ropewalk', ['check', operation, '--backend', 'hip', '--tier', tier, '--json'],
        reverse, tier)
    result = Result(instructions=instructions, seconds=seconds)
    try:
        report = json.loads(out)
        tally = report['operations'][0]['targets'][0]
        result.cases, result.passed = tally['cases'], tally['cases'] - tally['failures']
        result.failures = report['failures']
    except (ValueError, LookupError):
        result.failures = [f'{operation} ended with status {status}: {errors[-2000:]}']
    if status != 0 and not result.failures:
        result.failures = [f'{operation} ended with status {status}: {errors[-2000:]}']
    return result


def run_suite(target, name, reverse, tier):
    status, out, errors, instructions, seconds = run(target, name, [], reverse, tier)
    text = out + errors
    count = {word: sum(int(n) for n in re.findall(rf'\[  {word}  \] (\d+) test', text))
             for word in ('PASSED', 'FAILED')}
    result = Result(sum(count.values()), count['PASSED'], instructions, seconds)
    if status != 0:
        what = [line for line in text.splitlines() if 'FAILED' in line or 'amd_isa:' in line]
        result.failures = [f'{name} ended with status {status}: ' + '\n'.join(what[:10])]
    return result


def run_self_tests(target, name, reverse, tier):
    tests = [(test, expected[reverse]) for test, architectures, *expected in SELF_TESTS
             if not architectures or target.architecture in architectures]
    status, _, errors, instructions, seconds = run(
        target, name, [test for test, _ in tests], reverse, tier, ROPEWALK_ISA_LIMIT='300000')
    result = Result(len(tests), 0, instructions, seconds)
    for test, wanted in tests:
        part = re.search(rf'^== {test}$(.*?)^== {test} (passed|failed)$', errors, re.M | re.S)
        if part and (part[2] == 'passed' if wanted is None else
                     part[2] == 'failed' and re.search(wanted, part[1])):
            result.passed += 1
        else:
            told = f'{part[2]}: {part[1].strip()}' if part else f'did not end: status {status}'
            result.failures.append(f'self-test {test}, which must '
                                   f'{"pass" if wanted is None else "fail with " + wanted}, {told}')
    return result


def operations():
    """Those of src/ops.def, the longest first."""
    names = re.findall(r'^RW_OP\((\w+),', (ROOT / 'src/ops.def').read_text(), re.M)
    return LONGEST + [name for name in names if name not in LONGEST]


def jobs_of(target):
    """(name of the row, function, its argument) of every job on `target`."""
    jobs = [(name, run_operation, name) for name in operations()]
    jobs[1:1] = [(name, run_suite, name) for name in SUITES[:1]]
    jobs += [(name, run_suite, name) for name in SUITES[1:]]
    self_tests = '--offload-arch=' + target.architecture in (
        BUILD / 'amd_isa/self_test_command').read_text().split()
    return jobs + [('self-test', run_self_tests, 'isa_self_test')] * self_tests


# ---- the report ----

LINE = '{:<17} {:<24} {:>7} {:>7} {:>16} {:>8}'


def print_row(target, name, result):
    print(LINE.format(target.name, name, result.cases, result.passed,
                      f'{result.instructions:,}', f'{result.seconds:.1f}'), flush=True)


def told_failures(target, reverse, failures):
    """The first failures, each with the command that repeats it."""
    here = f'tests/amd_isa/isa_suite.py {target.name} -- ropewalk check'
    if reverse:
        here = f'ROPEWALK_ISA_REVERSE=1 {here}'
    told = [f'{target.name}: {text.replace("ropewalk check", here)}'
            for text in failures[:MOST_TOLD]]
    more = len(failures) - len(told)
    return told + [f'{target.name}: and {more} more'] * (more > 0)


def suite(targets, jobs, tier):
    """Prints the table. Seconds are process time; in an architecture's last row, elapsed time."""
    print(LINE.format('architecture', 'operation', 'cases', 'passed', 'instructions', 'seconds'))
    failures = []
    for target in targets:
        began, total = time.monotonic(), Result()
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            running = [(name, [pool.submit(function, target, argument, reverse, tier)
                               for reverse in (0, 1)])
                       for name, function, argument in jobs_of(target)]
            for name, both in running:
                result = Result()
                for reverse, future in enumerate(both):
                    result.add(future.result())
                    failures += told_failures(target, reverse, future.result().failures)
                print_row(target, name, result)
                total.add(result)
        total.seconds = time.monotonic() - began
        print_row(target, 'all', total)
    for text in failures:
        print(text, file=sys.stderr)
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--get', action='store_true')
    parser.add_argument('--programs', action='store_true')
    parser.add_argument('targets', nargs='*', metavar='ARCH[/BUILD]')
    arguments = sys.argv[1:]
    command = []
    if '--' in arguments:
        at = arguments.index('--')
        arguments, command = arguments[:at], arguments[at + 1:]
    options = parser.parse_args(arguments)
    if options.get or options.programs:
        print(isa_emulator.GET_IT if options.get else '\n'.join(['ropewalk-program', *SUITES]))
        return 0
    try:
        _, sources = isa_emulator.check()
        isa_forms.this_machine(sources)
    except isa_emulator.Unfit as error:
        print(f'amd_isa: {error}')
        if not isinstance(error, isa_emulator.Absent):
            return 1
        print(f'Command to fetch it: {isa_emulator.GET_IT}')
        return SKIPPED
    if options.check:
        return 0
    if not options.targets:
        parser.error('no architecture is named')
    targets = [find_target(text) for text in options.targets]
    if command:
        reverse = os.environ.get('ROPEWALK_ISA_REVERSE', 0)
        os.execvpe(program_path(command[0]), command, targets[0].environment(reverse))
    return suite(targets, options.jobs, os.environ.get('ROPEWALK_TEST_TIER', 'quick'))


if __name__ == '__main__':
    sys.exit(main())
