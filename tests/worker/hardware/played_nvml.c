/* A libnvidia-ml.so.1 without hardware: it answers from the text file that PLAYED_NVML names, read anew at each call.
 *
 * Lines of "key value". gpus N; gpuI.KEY and gpuI.migJ.KEY for what GPU I, or part J of it, has (uuid, memory_used,
 * memory_total, utilisation, sm_mhz, ecc, throttle, remap_failed, action, mig; gi, ci); gpuI.lost CODE: all questions
 * about it get that code; fail.FUNCTION CODE: that function does; hang.FUNCTION 1: it returns only when the line is gone;
 * event.K GPU XID GI CI: event number K from 1 on, told to sets made before it.
 * What is not named is not supported. Each call is a line of the file that PLAYED_NVML_CALLS names.
 * OLD is defined: a library of an old driver, which lacks whole functions.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMED_OUT = 10 };
enum { MOST_GPUS = 16, MOST_PARTS = 7, LINE = 256, PAUSE_MICROSECONDS = 5000 };

typedef struct { int gpu, part; char prefix[32]; } Device; /* part -1: the whole GPU */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilisation;
typedef struct {
    Device *device;
    unsigned long long type, data;
    unsigned int gpu_instance, compute_instance;
} Event;
typedef struct {
    unsigned int field, scope;
    long long timestamp, latency;
    unsigned int type, code;
    union { double real; unsigned int number; unsigned long long large; } value;
} Field;
typedef struct { long told; int registered[MOST_GPUS]; } EventSet;

static Device devices[MOST_GPUS][MOST_PARTS + 1];

static int look_up(char *found, const char *form, ...) {
    char key[LINE], line[LINE];
    va_list rest;
    va_start(rest, form);
    vsnprintf(key, sizeof key, form, rest);
    va_end(rest);
    const char *path = getenv("PLAYED_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    int there = 0;
    size_t length = strlen(key);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            strcpy(found, line + length + 1);
            there = 1;
        }
    if (file) fclose(file);
    return there;
}

static long number(long otherwise, const char *prefix, const char *key) {
    char found[LINE];
    return look_up(found, "%s%s", prefix, key) ? atol(found) : otherwise;
}

/* What every call begins with: it is written down, may hang, and may fail. */
static int begin(const char *name, const Device *device) {
    char found[LINE];
    const char *path = getenv("PLAYED_NVML_CALLS");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (file >= 0) {
        int length = snprintf(found, sizeof found, "%s %s\n", name, device ? device->prefix : "");
        if (write(file, found, length) < 0) perror(path);
        close(file);
    }
    while (look_up(found, "hang.%s", name)) usleep(PAUSE_MICROSECONDS);
    int code = look_up(found, "fail.%s", name) ? atoi(found) : SUCCESS;
    if (!code && device && look_up(found, "gpu%d.lost", device->gpu)) code = atoi(found);
    return code;
}

static Device *device_at(int gpu, int part) {
    Device *device = &devices[gpu][part + 1];
    device->gpu = gpu;
    device->part = part;
    if (part < 0) snprintf(device->prefix, sizeof device->prefix, "gpu%d.", gpu);
    else snprintf(device->prefix, sizeof device->prefix, "gpu%d.mig%d.", gpu, part);
    return device;
}

#define BEGIN(device) do { int code = begin(__func__, device); if (code) return code; } while (0)
#define ANSWER(device, key, place, kind) do { \
    BEGIN(device); \
    long answer = number(-1, (device)->prefix, key); \
    if (answer < 0) return NOT_SUPPORTED; \
    *(place) = (kind)answer; \
    return SUCCESS; \
} while (0)

int nvmlInitWithFlags(unsigned int flags) { (void)flags; BEGIN(NULL); return SUCCESS; }
int nvmlShutdown(void) { BEGIN(NULL); return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "played"; }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    BEGIN(NULL);
    *count = (unsigned int)number(0, "", "gpus");
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) {
    if ((long)index >= number(0, "", "gpus")) return BAD_ARGUMENT;
    Device *found = device_at((int)index, -1);
    BEGIN(found);
    *device = found;
    return SUCCESS;
}

int nvmlDeviceGetIndex(Device *device, unsigned int *index) {
    BEGIN(device);
    *index = (unsigned int)device->gpu;
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int length) {
    char found[LINE];
    if (!device) abort(); /* what NVIDIA's does with no handle is not said */
    BEGIN(device);
    if (!look_up(found, "%suuid", device->prefix)) return NOT_SUPPORTED;
    snprintf(uuid, length, "%s", found);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    BEGIN(device);
    long total = number(-1, device->prefix, "memory_total"), used = number(-1, device->prefix, "memory_used");
    if (total < 0) return NOT_SUPPORTED;
    *memory = (Memory){(unsigned long long)total, (unsigned long long)(total - used), (unsigned long long)used};
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilisation *rates) {
    ANSWER(device, "utilisation", &rates->gpu, unsigned int);
}

int nvmlDeviceGetClockInfo(Device *device, unsigned int kind, unsigned int *mhz) {
    if (kind != 1) return BAD_ARGUMENT; /* NVML_CLOCK_SM */
    ANSWER(device, "sm_mhz", mhz, unsigned int);
}

int nvmlDeviceGetTotalEccErrors(Device *device, unsigned int kind, unsigned int counter, unsigned long long *count) {
    if (kind != 1 || counter != 0) return BAD_ARGUMENT; /* uncorrected, volatile */
    ANSWER(device, "ecc", count, unsigned long long);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    ANSWER(device, "throttle", reasons, unsigned long long);
}

int nvmlEventSetCreate(EventSet **set) {
    char found[LINE];
    BEGIN(NULL);
    *set = calloc(1, sizeof **set);
    while (look_up(found, "event.%ld", (*set)->told + 1)) (*set)->told++;
    return SUCCESS;
}

int nvmlEventSetFree(EventSet *set) { BEGIN(NULL); free(set); return SUCCESS; }

int nvmlDeviceRegisterEvents(Device *device, unsigned long long types, EventSet *set) {
    if (types != 8) return BAD_ARGUMENT; /* nvmlEventTypeXidCriticalError */
    if (device->part >= 0) return NOT_SUPPORTED;
    BEGIN(device);
    set->registered[device->gpu] = 1;
    return SUCCESS;
}

#ifndef OLD
int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    ANSWER(device, "throttle", reasons, unsigned long long);
}

int nvmlDeviceGetRemappedRows(
    Device *device, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending, unsigned int *failed
) {
    *corrected = *uncorrected = *pending = 0;
    ANSWER(device, "remap_failed", failed, unsigned int);
}

int nvmlDeviceGetFieldValues(Device *device, int count, Field *fields) {
    BEGIN(device);
    for (int place = 0; place < count; place++) {
        long action = fields[place].field == 230 ? number(-1, device->prefix, "action") : -1;
        fields[place].code = action < 0 ? NOT_SUPPORTED : SUCCESS;
        fields[place].value.number = action < 0 ? 0 : (unsigned int)action;
    }
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *now, unsigned int *later) {
    *later = 0;
    ANSWER(device, "mig", now, unsigned int);
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned int *count) {
    BEGIN(device);
    *count = MOST_PARTS;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned int index, Device **part) {
    char found[LINE];
    BEGIN(device);
    if (!look_up(found, "%smig%u.uuid", device->prefix, index)) return NOT_FOUND;
    *part = device_at(device->gpu, (int)index);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(Device *part, unsigned int *id) { ANSWER(part, "gi", id, unsigned int); }
int nvmlDeviceGetComputeInstanceId(Device *part, unsigned int *id) { ANSWER(part, "ci", id, unsigned int); }

int nvmlEventSetWait_v2(EventSet *set, Event *event, unsigned int milliseconds) {
    char found[LINE];
    BEGIN(NULL);
    for (long waited = 0;; waited += PAUSE_MICROSECONDS) {
        while (look_up(found, "event.%ld", set->told + 1)) {
            int gpu = 0;
            unsigned int xid = 0, gi = 0xFFFFFFFF, ci = 0xFFFFFFFF;
            set->told++;
            sscanf(found, "%d %u %u %u", &gpu, &xid, &gi, &ci);
            if (!set->registered[gpu]) continue;
            *event = (Event){device_at(gpu, -1), 8, xid, gi, ci};
            return SUCCESS;
        }
        if (waited >= 1000L * milliseconds) return TIMED_OUT;
        usleep(PAUSE_MICROSECONDS);
    }
}
#endif
