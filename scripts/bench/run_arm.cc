// Runs a .nb file on the class of docs/lite.md, which run_arm.sh cuts out of the guide as classifier.h.
// Of standard input each line "n id ... type ...", with n ids and n token types, gives a line of logits.
#include <cstdio>
#include <iostream>

#include "classifier.h"

int main(int, char** argv) {
  Classifier classifier(argv[1]);
  size_t n;
  while (std::cin >> n) {
    std::vector<int64_t> ids(n), types(n);
    for (auto& id : ids) std::cin >> id;
    for (auto& type : types) std::cin >> type;
    for (float value : classifier.Logits(ids, types)) std::printf("%.9g ", value);
    std::printf("\n");
  }
}
