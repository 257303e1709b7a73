/* Stands in for libFuzzer where there is no clang: runs the files it is given, once each. */
#include <stdint.h>
#include <stdio.h>

enum { MOST_BYTES = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **names) {
  static uint8_t bytes[MOST_BYTES];
  for (int i = 1; i < count; i++) {
    FILE *file = fopen(names[i], "rb");
    if (file == NULL) return perror(names[i]), 1;
    size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    fprintf(stderr, "%s\n", names[i]); /* the last one is the one that fails */
    LLVMFuzzerTestOneInput(bytes, length);
  }
  printf("%d inputs\n", count - 1);
  return 0;
}
