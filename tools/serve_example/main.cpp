// Scores the golden rows of a bundle with libtorch alone, prints their probabilities, and compares the logits; where
// labels are numbers, predictions and outputs.
//
//   serve_example BUNDLE_FOLDER [MODEL_FILE]
//
// Exit status: 0 all scores agree, 1 they differ, 2 the bundle cannot be read or the input does not fit the model.

#include <torch/script.h>
#include <torch/serialize.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Features = c10::Dict<std::string, at::Tensor>;

// The same file and the same operators; only the number of threads may change the order of additions.
constexpr double kMaxFloatError = 1e-4;
// Rows of one byte a value are compared with the trained float model: a bound for gross mistakes, not for rounding.
constexpr double kMaxByteError = 0.5;

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error(path + ": cannot be opened. Name the folder of an exported bundle.");
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// golden.pt is a Python dict of dicts; its types are erased on the way, so the model's input is built anew.
Features to_features(const c10::IValue& value) {
  Features features;
  for (const auto& entry : value.toGenericDict()) {
    features.insert(entry.key().toStringRef(), entry.value().toTensor());
  }
  return features;
}

int score(const std::string& folder, const std::string& model_file) {
  const auto golden = torch::pickle_load(read_file(folder + "/golden.pt")).toGenericDict();
  torch::jit::Module model = torch::jit::load(folder + "/" + model_file);
  model.eval();

  c10::InferenceMode no_gradients;
  const auto outputs = model.forward({to_features(golden.at("features"))}).toTuple();
  const at::Tensor logits = outputs->elements()[0].toTensor();
  const at::Tensor answers = outputs->elements()[1].toTensor();
  const std::string name = golden.contains("logits") ? "logits" : "outputs";
  const at::Tensor expected = golden.at(name).toTensor();

  for (int64_t row = 0; row < answers.size(0); ++row) {
    const at::Tensor labels = answers[row].reshape({-1});  // of one label, or of several
    for (int64_t label = 0; label < labels.size(0); ++label) {
      std::cout << (label > 0 ? " " : "") << labels[label].item<float>();
    }
    std::cout << "\n";
  }
  const double error = ((logits - expected).abs() / expected.abs().clamp_min(1)).max().item<double>();
  std::cerr << logits.size(0) << " rows, largest error of " << name << " " << error << "\n";
  const double limit = model_file == "model.pt" ? kMaxFloatError : kMaxByteError;
  return error <= limit ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: serve_example BUNDLE_FOLDER [MODEL_FILE]\n";
    return 2;
  }
  try {
    return score(argv[1], argc == 3 ? argv[2] : "model.pt");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
