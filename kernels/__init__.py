"""Operations, one file each: public function, Triton kernel, torch reference."""
