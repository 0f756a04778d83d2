"""Spaces of the alignment loss that a model, a folder or a VAE does not allow: the error says what to do."""

import pytest
import torch
from alignment_runs import alignment_for, write_tiny
from tiny_vae import tiny_vae


class TestErrors:
    def decoder(self, decoders, tools, space, latent_format, shape=(1, 4, 16, 16), vae=None):
        model = type("Model", (), {"latent_format": latent_format})
        alignment = alignment_for(tools, decoders, space, vae)
        return decoders.decoder_for(model, alignment, torch.zeros(shape))

    def test_no_projection_known(self, decoders, tools):
        import comfy.latent_formats

        with pytest.raises(ValueError, match="space is 'rgb'.*no projection to RGB for SC_Prior_"):
            latent_format = type("SC_Prior_", (comfy.latent_formats.LatentFormat,), {"latent_rgb_factors": None})()
            self.decoder(decoders, tools, "rgb", latent_format)

    def test_no_tiny_decoder_in_the_folder(self, decoders, tools, approx):
        import comfy.latent_formats

        write_tiny(approx, "taesdxl_decoder.safetensors")
        with pytest.raises(ValueError, match="no taesd_decoder in ComfyUI's folder models/vae_approx.*github.com"):
            self.decoder(decoders, tools, "tiny", comfy.latent_formats.SD15())

    @pytest.mark.parametrize("name, shape", [("Wan21", (1, 16, 3, 8, 8)), ("Mochi", (1, 12, 1, 8, 8))])
    def test_no_tiny_decoder_of_videos(self, decoders, tools, name, shape):
        import comfy.latent_formats

        with pytest.raises(ValueError, match=f"no tiny image decoder for {name}"):
            self.decoder(decoders, tools, "tiny", getattr(comfy.latent_formats, name)(), shape)

    @pytest.mark.parametrize("space", ["latent", "rgb", "tiny"])
    def test_packed_latents(self, decoders, tools, space):
        import comfy.latent_formats

        with pytest.raises(ValueError, match=rf"'{space}'.*\(1, 1, 5000\)"):
            self.decoder(decoders, tools, space, comfy.latent_formats.LTXV(), (1, 1, 5000))

    def test_no_vae_connected(self, tools, decoders, pack_nodes):
        node = pack_nodes["GradPaintAlignmentLoss"]
        with pytest.raises(ValueError, match="no VAE is connected"):
            node.execute(0.1, 1, 0.5, "vae")
        with pytest.raises(ValueError, match="no VAE is connected"):  # settings made without the node
            import comfy.latent_formats

            self.decoder(decoders, tools, "vae", comfy.latent_formats.SD15())
        vae = tiny_vae()
        assert node.execute(0.1, 1, 0.5, "vae", vae).result[0].vae is vae
        assert node.execute(0.1, 1, 0.5, "rgb", vae).result[0] == tools.settings.AlignmentSettings(space="rgb")

    def test_a_vae_of_another_model(self, decoders, tools):
        import comfy.latent_formats

        with pytest.raises(ValueError, match="of 4 channels and this model's have 16"):
            self.decoder(decoders, tools, "vae", comfy.latent_formats.Flux(), (1, 16, 8, 8), tiny_vae())
        with pytest.raises(ValueError, match="a video.*1, 4, 3, 8, 8"):
            self.decoder(decoders, tools, "vae", comfy.latent_formats.SD15(), (1, 4, 3, 8, 8), tiny_vae())

    def test_an_unknown_space(self, tools):
        with pytest.raises(ValueError, match="space is 'pixels', but must be one of: auto, off"):
            tools.settings.AlignmentSettings(space="pixels")
