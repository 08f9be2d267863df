// Threefry-2x32 with 20 rounds (Salmon et al. 2011), one pair of words after another, as a handler of XLA.
// Arguments: two words of the key, two of the counter; results: two words. All are uint32 of one shape.

#include "xla/ffi/api/c_api.h"

static uint32_t rotated(uint32_t x, int by) { return (x << by) | (x >> (32 - by)); }

static uint32_t* words(void* buffer) { return (uint32_t*)((XLA_FFI_Buffer*)buffer)->data; }

XLA_FFI_Error* threefry(XLA_FFI_CallFrame* frame) {
  XLA_FFI_Metadata_Extension* asked = (XLA_FFI_Metadata_Extension*)frame->extension_start;
  if (asked != NULL && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Api_Version* version = &asked->metadata->api_version;
    version->major_version = XLA_FFI_API_MAJOR;
    version->minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  void **in = frame->args.args, **out = frame->rets.rets;
  const XLA_FFI_Buffer* like = (const XLA_FFI_Buffer*)in[0];
  int64_t size = 1;
  for (int64_t axis = 0; axis < like->rank; axis++) size *= like->dims[axis];
  for (int64_t i = 0; i < size; i++) {
    uint32_t one = words(in[0])[i], two = words(in[1])[i];
    const uint32_t key[3] = {one, two, one ^ two ^ 0x1BD11BDA};
    uint32_t a = words(in[2])[i] + key[0], b = words(in[3])[i] + key[1];
    for (int group = 0; group < 5; group++) {
      for (int k = 0; k < 4; k++) {
        a += b;
        b = rotated(b, rotations[group % 2][k]) ^ a;
      }
      a += key[(group + 1) % 3];
      b += key[(group + 2) % 3] + group + 1;
    }
    words(out[0])[i] = a;
    words(out[1])[i] = b;
  }
  return NULL;
}
