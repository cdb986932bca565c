"""The demo model's shape: every feature of Gemma 3 1B at small size."""

CONFIG = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": [1, 5],
    "final_logit_softcapping": None,
    "head_dim": 128,  # 4 x 128 = 512, not the hidden size
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 640,
    "max_position_embeddings": 1024,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 6,  # layer 5 is the global one
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 128,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 64,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 4096,
}
