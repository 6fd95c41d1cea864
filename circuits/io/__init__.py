"""Models from and to files and other libraries.

- config_of: a GPTConfig from the fields of a HookedTransformerConfig.
- folder_of: the folder of a model that ships, or the folder that a path names.
- from_hugging_face: a GPT with the weights of a model of transformers, and equal logits.
- from_state_dict: a GPT from the config and the state dict of a HookedTransformer.
- load: a model by its name or folder.
- load_weights: copies weights into a model by name; ValueError unless the names are equal.
- models: the names of the models that ship.
- read_tokenizer: the vocabulary in a tokenizer.json.
- read_weights: the tensors of a file by name, without running code in the file.
- save: writes config, weights and tokenizer of a model to a folder.
- saved_config: the config in a model folder.
- tokenizer_file: the tokenizer.json of a model folder; models that ship share theirs.
- vocabulary: a copy of a tokenizer of another library, as a Vocabulary.
- vocabulary_by_name: the vocabulary of a model on the Hugging Face Hub.
- write_tokenizer: writes a tokenizer.json, and its BOS and EOS beside it.
"""

from circuits.io.checkpoints import config_of, from_state_dict, load_weights
from circuits.io.hugging_face import from_hugging_face, vocabulary, vocabulary_by_name
from circuits.io.pretrained import folder_of, load, models, save, saved_config, tokenizer_file
from circuits.io.tokenizer_files import read_tokenizer, write_tokenizer
from circuits.io.weight_files import read_weights

__all__ = [
    "config_of", "folder_of", "from_hugging_face", "from_state_dict", "load", "load_weights",
    "models", "read_tokenizer", "read_weights", "save", "saved_config", "tokenizer_file",
    "vocabulary", "vocabulary_by_name", "write_tokenizer",
]  # fmt: skip
