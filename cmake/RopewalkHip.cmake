# The HIP backend: libropewalk-hip.so from the .hip files of kernels/ and backends/hip/, for one
# platform.
#
#   ROPEWALK_HIP                 auto (amd where a HIP compiler is found, else off), off, amd,
#                                nvidia or emulated
#   ROPEWALK_HIP_COMPILER        amd: hipcc, or a clang++ with the AMDGPU target
#   ROPEWALK_HIP_ARCHITECTURES   amd: architectures; those that the toolchain lacks are left out
#   ROPEWALK_HIP_FLAGS           more flags for the .hip files, amd and nvidia
#   CMAKE_CUDA_ARCHITECTURES     nvidia [90a;90-virtual]: code of Hopper, with its own matrix
#                                instructions, and PTX for later GPUs
#
# The sources are the same for all platforms; an include path selects the platform. Sets
# ROPEWALK_HIP_PLATFORM: amd, nvidia or emulated if the target ropewalk-hip exists, else empty.

set(ROPEWALK_HIP_ARCHITECTURES "gfx90a;gfx942;gfx950;gfx1030;gfx1100;gfx1201" CACHE STRING
    "Architectures of the amd platform")
set(ROPEWALK_HIP_FLAGS "" CACHE STRING "More flags for .hip files, amd and nvidia")

file(GLOB ROPEWALK_HIP_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.hip
     ${PROJECT_SOURCE_DIR}/kernels/*/*.hip ${PROJECT_SOURCE_DIR}/backends/hip/*.hip)
# The longest compilations start first.
list(REMOVE_ITEM ROPEWALK_HIP_SOURCES ${PROJECT_SOURCE_DIR}/kernels/softmax.hip)
list(PREPEND ROPEWALK_HIP_SOURCES ${PROJECT_SOURCE_DIR}/kernels/softmax.hip)
set(ROPEWALK_HIP_INCLUDES ${PROJECT_SOURCE_DIR}/include ${ROPEWALK_INTERNAL_INCLUDES})

# Flags for every platform's compiler, in gcc's syntax. No strict aliasing: kernels move 16 bytes at
# a time through pointers to other types. No thread-safe statics: nvcc defines static variables
# where kernels are launched, and their guards would require the C++ library.
set(ROPEWALK_HIP_HOST_FLAGS -Wall -Wextra -Werror=switch -fPIC -fno-exceptions -fno-rtti
    -fvisibility=hidden -fno-strict-aliasing -fno-threadsafe-statics)

# ---- emulated ----

# Links a target that runs kernels on the CPU with the emulator.
function(ropewalk_link_hip_emulator target)
  if(NOT TARGET ropewalk-hip-emulator)
    set(folder ${PROJECT_SOURCE_DIR}/tests/hip_emulator)
    find_package(Threads REQUIRED)
    add_library(ropewalk-hip-emulator STATIC ${folder}/emulator_block.cpp
                ${folder}/emulator_fiber.cpp ${folder}/emulator_matrix.cpp
                ${folder}/emulator_barriers.cpp ${folder}/emulator_copy.cpp
                ${folder}/emulator_graphs.cpp ${folder}/emulator_match.cpp
                ${folder}/emulator_runtime.cpp ${folder}/emulator_streams.cpp
                ${folder}/emulator_wgmma.cpp)
    target_compile_options(ropewalk-hip-emulator PRIVATE -fno-exceptions -fno-rtti)
    if(ROPEWALK_SANITIZE)
      # It takes most of the time of tests on it.
      target_compile_options(ropewalk-hip-emulator PRIVATE -O3)
    endif()
    target_include_directories(ropewalk-hip-emulator PUBLIC ${folder})
    target_link_libraries(ropewalk-hip-emulator PRIVATE ropewalk-flags PUBLIC Threads::Threads)
  endif()
  target_link_libraries(${target} PRIVATE ropewalk-hip-emulator)
endfunction()

function(ropewalk_add_hip_emulated)
  set_source_files_properties(${ROPEWALK_HIP_SOURCES} PROPERTIES LANGUAGE CXX)
  add_library(ropewalk-hip MODULE ${ROPEWALK_HIP_SOURCES})
  # #pragma unroll is specific to GPU compilers. -O3 would double compile time and gain little.
  target_compile_options(ropewalk-hip PRIVATE ${ROPEWALK_HIP_HOST_FLAGS} -Wno-unknown-pragmas
                         $<$<CONFIG:Release>:-O2>)
  target_include_directories(ropewalk-hip PRIVATE ${ROPEWALK_HIP_INCLUDES})
  target_link_libraries(ropewalk-hip PRIVATE ropewalk-flags)
  ropewalk_link_hip_emulator(ropewalk-hip)
  message(STATUS "HIP: emulated on the CPU, for tests")
endfunction()

# ---- amd and nvidia: separate compilers ----

# Compiles every .hip file with `command` and links the objects with the C compiler, with `ARGN`.
function(ropewalk_add_hip_module command)
  set(objects)
  foreach(source IN LISTS ROPEWALK_HIP_SOURCES)
    get_filename_component(name ${source} NAME)
    set(object ${PROJECT_BINARY_DIR}/hip/${name}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${command} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building ${name}" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/hip)
  set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  add_library(ropewalk-hip MODULE ${objects})
  set_target_properties(ropewalk-hip PROPERTIES LINKER_LANGUAGE C)
  target_link_libraries(ropewalk-hip PRIVATE ${ARGN})
  install(TARGETS ropewalk-hip LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

function(ropewalk_hip_compile_flags result)
  set(flags -std=c++17 -O3)
  foreach(folder IN LISTS ROPEWALK_HIP_INCLUDES)
    list(APPEND flags -I${folder})
  endforeach()
  if(CMAKE_BUILD_TYPE STREQUAL Debug OR CMAKE_BUILD_TYPE STREQUAL RelWithDebInfo)
    list(APPEND flags -g)
  endif()
  separate_arguments(more NATIVE_COMMAND "${ROPEWALK_HIP_FLAGS}")
  set(${result} ${flags} ${more} PARENT_SCOPE)
endfunction()

# ---- amd ----

# Whether `command` compiles the probe for `architecture`.
function(ropewalk_probe_hip architecture result)
  execute_process(
    COMMAND ${ARGN} --offload-arch=${architecture} -c ${PROJECT_SOURCE_DIR}/cmake/hip-probe.hip
            -o ${PROJECT_BINARY_DIR}/hip-probe.o
    RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
  if(status EQUAL 0)
    set(${result} TRUE PARENT_SCOPE)
  else()
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()

# A plain clang does not find the device libraries, and a distribution's may lack newer
# architectures.
function(ropewalk_find_device_libs result)
  set(${result} "" PARENT_SCOPE)
  if(NOT ROPEWALK_HIP_COMPILER MATCHES "clang")
    return()
  endif()
  find_path(ROPEWALK_HIP_DEVICE_LIBS ockl.bc
    HINTS /opt/rocm/amdgcn/bitcode /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/amdgcn/bitcode
          /usr/lib/amdgcn/bitcode /usr/amdgcn/bitcode)
  if(NOT ROPEWALK_HIP_DEVICE_LIBS)
    return()
  endif()
  set(complete ${PROJECT_BINARY_DIR}/hip-device-libs)
  execute_process(
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/complete-device-libs ${ROPEWALK_HIP_COMPILER}
            ${ROPEWALK_HIP_DEVICE_LIBS} ${complete} ${ROPEWALK_HIP_ARCHITECTURES}
    RESULT_VARIABLE status ERROR_VARIABLE error)
  if(status EQUAL 0)
    set(${result} --rocm-device-lib-path=${complete} PARENT_SCOPE)
  else()
    message(STATUS "HIP: the device libraries could not be completed: ${error}")
  endif()
endfunction()

# Sets `result` to the reason why amd is not available, or ""; sets ROPEWALK_HIP_COMPILER and the
# library.
function(ropewalk_find_amd result)
  find_program(ROPEWALK_HIP_COMPILER NAMES hipcc amdclang++ HINTS $ENV{ROCM_PATH}/bin /opt/rocm/bin
               DOC "Compiler of the amd platform")
  find_library(ROPEWALK_AMDHIP64 amdhip64 HINTS $ENV{ROCM_PATH}/lib /opt/rocm/lib)
  set(why "")
  if(NOT ROPEWALK_HIP_COMPILER)
    set(why "no hipcc or amdclang++ was found")
  elseif(NOT ROPEWALK_AMDHIP64)
    set(why "libamdhip64 was not found")
  endif()
  set(${result} "${why}" PARENT_SCOPE)
endfunction()

# Adds the module if the toolchain compiles for any architecture; else `result` receives the reason.
function(ropewalk_add_hip_amd result)
  set(${result} "" PARENT_SCOPE)
  ropewalk_find_device_libs(device_libs)
  # Version 4 is loaded by every runtime since ROCm 4.5.
  set(command ${ROPEWALK_HIP_COMPILER} -x hip -mcode-object-version=4 ${device_libs})
  set(architectures)
  set(left_out)
  foreach(architecture IN LISTS ROPEWALK_HIP_ARCHITECTURES)
    ropewalk_probe_hip(${architecture} known ${command})
    if(known)
      list(APPEND architectures ${architecture})
    else()
      list(APPEND left_out ${architecture})
    endif()
  endforeach()
  if(NOT architectures)
    set(${result} "${ROPEWALK_HIP_COMPILER} compiles for none of ${ROPEWALK_HIP_ARCHITECTURES}"
        PARENT_SCOPE)
    return()
  endif()
  message(STATUS "HIP: amd, by ${ROPEWALK_HIP_COMPILER}, for ${architectures}")
  if(left_out)
    message(STATUS "HIP: left out, since the toolchain does not support them: ${left_out}")
  endif()
  ropewalk_hip_compile_flags(flags)
  list(APPEND command ${ROPEWALK_HIP_HOST_FLAGS} ${flags})
  foreach(architecture IN LISTS architectures)
    list(APPEND command --offload-arch=${architecture})
  endforeach()
  string(REPLACE ";" "\n" lines "${command}")
  file(WRITE ${PROJECT_BINARY_DIR}/hip/command "${lines}\n") # for ci/inspect-amd
  ropewalk_add_hip_module("${command}" ${ROPEWALK_AMDHIP64})
endfunction()

# ---- nvidia ----

function(ropewalk_add_hip_nvidia)
  find_program(ROPEWALK_NVCC nvcc HINTS $ENV{CUDA_PATH}/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin
               DOC "Compiler of the nvidia platform")
  if(NOT ROPEWALK_NVCC)
    message(FATAL_ERROR "ROPEWALK_HIP is nvidia, but nvcc was not found")
  endif()
  get_filename_component(folder ${ROPEWALK_NVCC} REALPATH)
  get_filename_component(folder ${folder} DIRECTORY)
  find_library(ROPEWALK_CUDART cudart_static
    HINTS ${folder}/../lib64 ${folder}/../lib ${folder}/../targets/x86_64-linux/lib)
  if(NOT ROPEWALK_CUDART)
    message(FATAL_ERROR "ROPEWALK_HIP is nvidia, but libcudart_static was not found near ${folder}")
  endif()
  set(architectures ${CMAKE_CUDA_ARCHITECTURES})
  if(NOT architectures)
    set(architectures 90a 90-virtual)
  endif()
  ropewalk_hip_compile_flags(flags)
  string(REPLACE ";" "," host_flags "${ROPEWALK_HIP_HOST_FLAGS}")
  set(command ${ROPEWALK_NVCC} -x cu -Xcompiler=${host_flags} ${flags}
      -I${PROJECT_SOURCE_DIR}/backends/hip/nvidia)
  foreach(architecture IN LISTS architectures)
    string(REGEX MATCH "^[0-9]+[a-z]?" number ${architecture})
    set(code sm_${number},compute_${number})
    if(architecture MATCHES "-real$|a$")
      set(code sm_${number})
    elseif(architecture MATCHES "-virtual$")
      set(code compute_${number})
    endif()
    list(APPEND command -gencode=arch=compute_${number},code=[${code}])
    if(number STREQUAL "90a")
      list(APPEND command -DRWI_HAS_WGMMA)
    endif()
  endforeach()
  message(STATUS "HIP: nvidia, by ${ROPEWALK_NVCC}, for ${architectures}")
  find_package(Threads REQUIRED)
  ropewalk_add_hip_module("${command}" ${ROPEWALK_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
endfunction()

# ---- the choice ----

set(ROPEWALK_HIP_PLATFORM ${ROPEWALK_HIP})
if(ROPEWALK_HIP STREQUAL "auto" OR ROPEWALK_HIP STREQUAL "amd")
  set(ROPEWALK_HIP_PLATFORM amd)
  ropewalk_find_amd(why)
  if(NOT why)
    ropewalk_add_hip_amd(why)
  endif()
  if(why AND ROPEWALK_HIP STREQUAL "amd")
    message(FATAL_ERROR "ROPEWALK_HIP is amd, but ${why}")
  elseif(why)
    message(STATUS "HIP: off, since ${why}")
  endif()
elseif(ROPEWALK_HIP STREQUAL "nvidia")
  ropewalk_add_hip_nvidia()
elseif(ROPEWALK_HIP STREQUAL "emulated")
  ropewalk_add_hip_emulated()
elseif(ROPEWALK_HIP STREQUAL "off")
  message(STATUS "HIP: off")
else()
  message(FATAL_ERROR "ROPEWALK_HIP is \"${ROPEWALK_HIP}\", "
          "expected auto, off, amd, nvidia or emulated")
endif()
if(NOT TARGET ropewalk-hip)
  set(ROPEWALK_HIP_PLATFORM "")
endif()

if(TARGET ropewalk-hip)
  set(exports ${PROJECT_SOURCE_DIR}/cmake/hip-module.map)
  if(ROPEWALK_HIP_PLATFORM STREQUAL emulated)
    set(exports ${PROJECT_SOURCE_DIR}/tests/hip_emulator/hip-module.map)
  endif()
  target_link_options(ropewalk-hip PRIVATE -Wl,--version-script=${exports})
  set_target_properties(ropewalk-hip PROPERTIES LINK_DEPENDS ${exports})
  if(NOT ROPEWALK_SANITIZE)
    target_link_options(ropewalk-hip PRIVATE -Wl,-z,defs)
  endif()
endif()
